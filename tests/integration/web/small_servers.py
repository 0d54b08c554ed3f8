"""The servers that come as a library: ``python -m … wsgiref|gevent PORT``."""

from __future__ import annotations

import sys


def main(name: str, port: int) -> None:
    if name == "gevent":
        from gevent import monkey

        monkey.patch_all()
        from gevent.pywsgi import WSGIServer

        from tests.integration.web.wsgi_service import app

        WSGIServer(("127.0.0.1", port), app, log=None).serve_forever()
        return
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    from tests.integration.web.wsgi_service import app

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None: ...

    make_server("127.0.0.1", port, app, handler_class=Quiet).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
