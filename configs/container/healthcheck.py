#!/opt/visaged/bin/python -I
"""The health check of the container: asks the daemon beside it whether all of its parts are alive.

HEALTH_URL says where; a certificate there is not verified, because nobody else listens on this loopback.
"""

from __future__ import annotations

import os
import ssl
import sys
import urllib.error
import urllib.request


def main() -> None:
    """Exit with 0 if the daemon is healthy, else with 1 and the reason."""
    url = os.environ.get("HEALTH_URL", "http://127.0.0.1:8080/healthz")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # A proxy that the environment names, for cameras behind http://, is not asked about this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=4) as answer:
            sys.stdout.write(answer.read(1000).decode(errors="replace") + "\n")
    except urllib.error.HTTPError as error:
        sys.exit(f"{url} answered {error.code}: {error.read(1000).decode(errors='replace')}")
    except (OSError, ValueError) as error:
        sys.exit(f"{url} does not answer: {error}")


if __name__ == "__main__":
    main()
