"""The word-level tokenizer of the micro models: every word of the embedded world is one token."""

from string import ascii_uppercase

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from components.scenes.questions import vocabulary

PAD, BOS, UNKNOWN, EOS = range(4)
SPECIAL = ("<pad>", "<s>", "<unk>", "</s>")


def word_tokenizer(
    extra: tuple[str, ...] = (),
    add_eos: bool = True,
    later: tuple[str, ...] = (),
    named: dict[str, str] | None = None,
) -> PreTrainedTokenizerFast:
    """A tokenizer over the world's vocabulary and `extra` words; prepends <s> and, where asked, appends </s>.

    `later` words come last, so that those before keep their numbers; `named` says what a processor calls some of them.
    """
    words = list(dict.fromkeys([*SPECIAL, *extra, *vocabulary(), *later]))
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    # People write "How many circles are there?"; letters of their own, such as an option's A, keep their case.
    backend.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(rf"\b{letter}(?=[a-z])"), letter.lower()) for letter in ascii_uppercase]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("[?.,!]"), "isolated")]
    )
    # A processor writes <image> once per patch with no blank between: only a special token is found there.
    backend.add_special_tokens([word for word in (*extra, *later) if word.startswith("<")])
    single = "<s> $A </s>" if add_eos else "<s> $A"
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", BOS), ("</s>", EOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        unk_token="<unk>",
        eos_token="</s>",
        extra_special_tokens=named or {},
        model_max_length=256 if not later else 2048,
        clean_up_tokenization_spaces=False,
    )
