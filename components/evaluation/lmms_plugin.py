"""What lmms-eval finds of this project when it starts (entry point group `lmms_eval.models`)."""

from lmms_eval.models.registry_v2 import ModelManifest

MODELS = ModelManifest(model_id="cotam", simple_class_path="components.evaluation.lmms_model.CotamModel")
