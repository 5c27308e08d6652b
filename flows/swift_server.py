"""OpenStack Swift, all four servers in one process, speaking S3.

    /usr/bin/python3 -I swift_server.py FOLDER HOST PORT

It runs under Debian's Python, whose packages swift-proxy, swift-account, swift-container and swift-object it needs, and
imports nothing of ours. FOLDER holds `swift.conf` and `proxy-server.conf` (`flows/s3_store.py` writes them) and `data`.
The three storage servers listen on free loopback ports; their rings are therefore made anew at every start. There is
one device and one replica: a store for one machine and for tests, not for a cluster.
"""

import logging
import os
import pwd
import sys

import eventlet
import eventlet.wsgi

eventlet.patcher.monkey_patch(all=False, socket=True, select=True, thread=True, time=True)

PART_POWER = 6
STORAGE = ("account", "container", "object")
THREADS = 64

_STORAGE_CONF = """[DEFAULT]
devices = {folder}/data
mount_check = false
swift_dir = {folder}
disable_fallocate = true
user = {user}
log_custom_handlers = cotam_swift.log_to_stderr
log_level = WARNING
recon_cache_path = {folder}

[pipeline:main]
pipeline = {name}-server

[app:{name}-server]
use = egg:swift#{name}
container_update_timeout = 60
"""


def log_to_stderr(conf, name, log_to_console, log_route, fmt, logger, adapted_logger) -> None:
    """Swift's hook for log handlers (`log_custom_handlers`)."""
    logger.addHandler(logging.StreamHandler())


class NoCache:
    """In memcached's place, which Swift asks for: one process with one disk has nothing to save by remembering."""

    def get(self, *_, **__):
        return None

    def set(self, *_, **__):
        return None

    delete = incr = decr = set


def adapted(app):
    """The WSGI application `app`, given such a cache.

    And every answer that has no body says so: eventlet ends one of unknown length with the mark of an empty chunk, even
    where HTTP allows no body at all, and strict clients take that for the beginning of the next answer.
    """

    def call(environ, start_response):
        environ["swift.cache"] = NoCache()

        def start(status, headers, exc_info=None):
            bodiless = environ["REQUEST_METHOD"] == "HEAD" or status[:3] in ("204", "304")
            if bodiless and "content-length" not in {name.lower() for name, _ in headers}:
                headers = [*headers, ("Content-Length", "0")]
            return start_response(status, headers, exc_info)

        return app(environ, start)

    return call


def write_ring(folder: str, name: str, port: int) -> None:
    """Say where the server `name` listens."""
    from swift.common.ring import RingBuilder

    builder = RingBuilder(PART_POWER, 1, 0)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": "d1", "weight": 1.0})
    builder.rebalance()
    builder.get_ring().save(os.path.join(folder, f"{name}.ring.gz"))


def serve(folder: str, host: str, port: int) -> None:
    """Serve until killed."""
    from swift.common import utils

    utils.set_swift_dir(folder)
    utils.validate_configuration()
    from swift.common import constraints, storage_policy
    from swift.common.wsgi import SwiftHttpProtocol, loadapp

    constraints.reload_constraints()
    storage_policy.reload_storage_policies()
    logging.getLogger().setLevel(logging.WARNING)
    public = eventlet.listen((host, port), backlog=4096)
    sockets = {name: eventlet.listen(("127.0.0.1", 0)) for name in STORAGE}
    os.makedirs(os.path.join(folder, "data", "d1"), exist_ok=True)
    for name, socket in sockets.items():
        write_ring(folder, name, socket.getsockname()[1])
        conf = os.path.join(folder, f"{name}-server.conf")
        with open(conf, "w") as file:
            file.write(_STORAGE_CONF.format(folder=folder, name=name, user=pwd.getpwuid(os.getuid()).pw_name))
    confs = {name: os.path.join(folder, f"{name}-server.conf") for name in (*STORAGE, "proxy")}
    threads = []
    for name, socket in (*sockets.items(), ("proxy", public)):
        app = loadapp(confs[name], global_conf={"log_name": f"{name}-server"})
        app = adapted(app) if name == "proxy" else app
        pool = eventlet.GreenPool(THREADS)
        quiet = logging.getLogger("quiet")
        quiet.setLevel(logging.CRITICAL)
        arguments = {"log": quiet, "custom_pool": pool, "protocol": SwiftHttpProtocol, "log_output": False}
        threads.append(eventlet.spawn(eventlet.wsgi.server, socket, app, **arguments))
    for thread in threads:
        thread.wait()


if __name__ == "__main__":
    sys.modules["cotam_swift"] = sys.modules["__main__"]
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
