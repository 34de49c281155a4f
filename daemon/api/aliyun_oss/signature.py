"""Signatures of requests: OSS's versions 1 and 4, in a header or in the query.

Both versions sign `/<bucket>/<key>`, whether the bucket was named by path, by host or by a domain of its own, and
whatever the endpoint's address is. Sources: Alibaba Cloud's documents "Include V1 signatures in the Authorization
header", "Include a V4 signature in a URL" and similar ones, and the signers of the packages oss2 and
alibabacloud-oss-v2, which the tests use.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from visaged.daemon.api.aliyun_oss.errors import OssError
from visaged.daemon.api.aliyun_oss.requests import OssRequest

MAX_SKEW_S = 900
"""Seconds that a client's clock may be off, as in OSS."""
MAX_EXPIRES_S = 7 * 86400
"""Longest life in seconds of a URL with a V4 signature, as in OSS."""

V4 = "OSS4-HMAC-SHA256"

SUBRESOURCES = frozenset(
    b"accessPoint accessPointPolicy acl append asyncFetch bucketArchiveDirectRead bucketInfo callback callback-var "
    b"cloudboxes cname comp continuation-token cors delete encryption endTime group httpsConfig img inventory "
    b"inventoryId lifecycle link live location logging metaQuery objectInfo objectMeta partNumber policy position "
    b"publicAccessBlock qos qosInfo qosRequester redundancyTransition referer regionList replication "
    b"replicationLocation replicationProgress requestPayment requesterQosInfo resourceGroup resourcePool "
    b"resourcePoolBuckets resourcePoolInfo response-cache-control response-content-disposition "
    b"response-content-encoding response-content-language response-content-type response-expires restore "
    b"security-token sequential startTime stat status style styleName symlink tagging transferAcceleration uploadId "
    b"uploads versionId versioning versions vod website worm wormExtend wormId x-oss-ac-forward-allow "
    b"x-oss-ac-source-ip x-oss-ac-subnet-mask x-oss-ac-vpc-id x-oss-access-point-name x-oss-async-process "
    b"x-oss-process x-oss-redundancy-transition-taskid x-oss-request-payer x-oss-target-redundancy-type "
    b"x-oss-traffic-limit x-oss-write-get-object-response".split()
)
"""The query parameters that version 1 signs."""

# Version 1 signs decoded text, in which the value `en&x-oss-process=imm/detectface` looks the same as two parameters:
# a client with a signed URL for the faces of a picture could turn it into one for the picture.
_PARAMETER = re.compile(rb"[?&](?:" + b"|".join(map(re.escape, sorted(SUBRESOURCES))) + rb")(?:[=&]|\Z)")

_CREDENTIAL = re.compile(
    r"(?P<id>[^,\s]+)/(?P<date>\d{8})/(?P<region>[A-Za-z0-9-]*)/(?P<product>[a-z-]+)/aliyun_v4_request"
)


class Verifier:
    """Verifies the signatures of requests.

    Args:
        secrets: Secrets by access key id; without any, no signature can be verified.
        region: The only region for which V4 signatures are accepted; None for any.
        clock: Returns seconds since 1970.
    """

    def __init__(self, secrets: Mapping[str, str], region: str | None, clock: Callable[[], float]) -> None:
        self._secrets = dict(secrets)
        self._region = region
        self._clock = clock

    def verify(self, request: OssRequest) -> bool:
        """Return whether a request has a valid signature; without configured keys none has.

        Raises:
            OssError: The request is signed, but the signature is not valid.
        """
        if not self._secrets:
            return False
        authorization = request.header(b"authorization").decode("latin-1")
        if authorization.startswith(f"{V4} "):
            self._header_v4(request, authorization.removeprefix(f"{V4} "))
        elif authorization.startswith("OSS "):
            self._header_v1(request, authorization.removeprefix("OSS "))
        elif authorization:
            raise OssError(
                "InvalidArgument", f"Unsupported authorization type; sign with version 1 (OSS) or version 4 ({V4})."
            )
        elif request.argument(b"x-oss-signature-version") is not None or request.argument(b"x-oss-signature"):
            self._query_v4(request)
        elif any(request.argument(name) is not None for name in (b"Signature", b"OSSAccessKeyId")):
            self._query_v1(request)
        else:
            return False
        return True

    def _header_v1(self, request: OssRequest, credentials: str) -> None:
        key_id, colon, signature = credentials.strip().rpartition(":")
        if not colon:
            raise OssError("InvalidArgument", "The authorization header is not of the form: OSS id:signature.")
        secret = self._secret(key_id)
        date = request.header(b"x-oss-date") or request.header(b"date")
        self._check_skew(_time(date), date)
        _check_unambiguous(request)
        signed = string_to_sign_v1(request, date)
        _compare(signature_v1(secret, signed), signature, key_id, {"StringToSign": _shown(signed)})

    def _query_v1(self, request: OssRequest) -> None:
        given = [request.argument(name) for name in (b"OSSAccessKeyId", b"Expires", b"Signature")]
        if None in given:
            raise OssError(
                "AccessDenied",
                "Query-string authentication requires the Signature, Expires and OSSAccessKeyId parameters.",
            )
        key_id, expires, signature = ((value or b"").decode("latin-1") for value in given)
        secret = self._secret(key_id)
        if not re.fullmatch(r"[0-9]{1,12}", expires):
            raise OssError("AccessDenied", "Invalid date (should be seconds since epoch).")
        if self._clock() >= int(expires):
            raise _expired(int(expires))
        _check_unambiguous(request)
        signed = string_to_sign_v1(request, expires.encode())
        _compare(signature_v1(secret, signed), signature, key_id, {"StringToSign": _shown(signed)})

    def _header_v4(self, request: OssRequest, parameters: str) -> None:
        pairs = dict(part.strip().partition("=")[::2] for part in parameters.split(","))
        date = request.header(b"x-oss-date") or request.header(b"date")
        moment = _time(date)
        additional = frozenset(name for name in pairs.get("AdditionalHeaders", "").lower().split(";") if name)
        credential, signature = pairs.get("Credential", ""), pairs.get("Signature", "")
        self._check_v4(request, credential, signature, moment, additional, request.query)

    def _query_v4(self, request: OssRequest) -> None:
        def given(name: str) -> str:
            return (request.argument(name.encode()) or b"").decode("latin-1")

        if given("x-oss-signature-version") != V4:
            raise OssError("InvalidArgument", f"x-oss-signature-version must be {V4}.")
        missing = [n for n in ("credential", "date", "expires", "signature") if not given(f"x-oss-{n}")]
        if missing:
            names = ", ".join(f"x-oss-{name}" for name in missing)
            raise OssError("AccessDenied", f"A signature in the query needs the parameters {names} too.")
        expires = given("x-oss-expires")
        if not re.fullmatch(r"[0-9]{1,7}", expires) or not 1 <= int(expires) <= MAX_EXPIRES_S:
            raise OssError("InvalidArgument", f"x-oss-expires must be a number of seconds from 1 to {MAX_EXPIRES_S}.")
        moment = _time(given("x-oss-date").encode())
        additional = frozenset(name for name in given("x-oss-additional-headers").lower().split(";") if name)
        query = tuple(pair for pair in request.query if pair[0] != b"x-oss-signature")
        life_s = int(expires)
        self._check_v4(request, given("x-oss-credential"), given("x-oss-signature"), moment, additional, query, life_s)

    def _check_v4(
        self,
        request: OssRequest,
        credential: str,
        signature: str,
        moment: datetime | None,
        additional: Collection[str],
        query: tuple[tuple[bytes, bytes], ...],
        life_s: int | None = None,
    ) -> None:
        """Check a V4 signature; `life_s` is the life of a signed URL, None for a header."""
        found = _CREDENTIAL.fullmatch(credential)
        if found is None:
            raise OssError(
                "InvalidArgument", "The credential is not of the form: id/date/region/oss/aliyun_v4_request."
            )
        secret = self._secret(found["id"])
        if found["product"] != "oss":
            raise OssError("InvalidArgument", "The product in the credential's scope must be oss.")
        if self._region is not None and found["region"] != self._region:
            raise OssError("InvalidArgument", f"Invalid signing region in the credential; it must be {self._region}.")
        if moment is not None and f"{moment:%Y%m%d}" != found["date"]:
            raise OssError("InvalidArgument", "The date in the credential's scope is not that of x-oss-date.")
        if life_s is None:
            self._check_skew(moment, request.header(b"x-oss-date"))
        elif moment is None:
            raise OssError("AccessDenied", "x-oss-date is not of the form 20060102T150405Z.")
        else:
            age_s = self._clock() - moment.timestamp()
            if age_s < -MAX_SKEW_S:
                raise OssError("AccessDenied", "Request is not valid yet.")
            if age_s >= life_s:
                raise _expired(moment.timestamp() + life_s)
        assert moment is not None
        canonical = canonical_request_v4(request, query, additional)
        scope = credential.partition(f"{found['id']}/")[2]
        signed = f"{V4}\n{moment:%Y%m%dT%H%M%SZ}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}".encode()
        details = {"StringToSign": _shown(signed), "CanonicalRequest": _shown(canonical)}
        _compare(signature_v4(secret, scope, signed), signature, found["id"], details)

    def _secret(self, key_id: str) -> str:
        secret = self._secrets.get(key_id)
        if secret is None:
            message = "The OSS Access Key Id you provided does not exist in our records."
            raise OssError("InvalidAccessKeyId", message, {"OSSAccessKeyId": key_id[:128]})
        return secret

    def _check_skew(self, moment: datetime | None, sent: bytes) -> None:
        if moment is None:
            raise OssError("AccessDenied", "OSS authentication requires a valid Date.")
        now_s = self._clock()
        if abs(moment.timestamp() - now_s) > MAX_SKEW_S:
            message = "The difference between the request time and the current time is too large."
            details = {
                "MaxAllowedSkewMilliseconds": str(MAX_SKEW_S * 1000),
                "RequestTime": sent.decode("latin-1")[:64],
                "ServerTime": _iso(now_s),
            }
            raise OssError("RequestTimeTooSkewed", message, details)


def string_to_sign_v1(request: OssRequest, date: bytes) -> bytes:
    """Return the bytes that version 1 signs; `date` is the Date header, or the expiry time of a signed URL."""
    oss = sorted((name, value) for name, value in request.headers if name.startswith(b"x-oss-"))
    headers = b"".join(name + b":" + value + b"\n" for name, value in oss)
    chosen = sorted((pair for pair in request.query if pair[0] in SUBRESOURCES), key=lambda pair: pair[0])
    query = b"&".join(name + b"=" + value if value else name for name, value in chosen)
    resource = _resource(request) + (b"?" + query if query else b"")
    first = [request.method.encode(), request.header(b"content-md5"), request.header(b"content-type"), date]
    return b"\n".join([*first, headers + resource])


def signature_v1(secret: str, signed: bytes) -> str:
    """Return the signature of version 1."""
    return base64.b64encode(hmac.digest(secret.encode(), signed, "sha1")).decode()


def canonical_request_v4(
    request: OssRequest, query: tuple[tuple[bytes, bytes], ...], additional: Collection[str]
) -> bytes:
    """Return the canonical request of version 4.

    Args:
        request: The request.
        query: Query parameters of the request, without the signature.
        additional: Names in lower case of the headers that are signed besides those that always are.
    """
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in query)
    headers = sorted(
        (name, value)
        for name, value in request.headers
        if name.startswith(b"x-oss-")
        or name in (b"content-type", b"content-md5")
        or name.decode("latin-1") in additional
    )
    lines = [
        request.method.encode(),
        quote(_resource(request), safe="/").encode(),
        "&".join(f"{name}={value}" if value else name for name, value in pairs).encode(),
        b"".join(name + b":" + value + b"\n" for name, value in headers),
        ";".join(sorted(additional)).encode(),
        request.header(b"x-oss-content-sha256") or b"UNSIGNED-PAYLOAD",
    ]
    return b"\n".join(lines)


def signature_v4(secret: str, scope: str, signed: bytes) -> str:
    """Return the signature of version 4 for a scope of `date/region/oss/aliyun_v4_request`."""
    key = f"aliyun_v4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, signed, "sha256").hex()


def _check_unambiguous(request: OssRequest) -> None:
    texts = [request.key, *(value for name, value in request.query if name in SUBRESOURCES)]
    if any(_PARAMETER.search(text) for text in texts):
        text = "A version 1 signature would also be valid for this text as several parameters; sign with version 4."
        raise OssError("InvalidArgument", text)


def _resource(request: OssRequest) -> bytes:
    return b"/" if request.bucket is None else b"/" + request.bucket.encode() + b"/" + request.key


def _compare(right: str, given: str, key_id: str, details: Mapping[str, str]) -> None:
    if not hmac.compare_digest(right.encode(), given.strip().encode("utf-8", "replace")):
        message = (
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method."
        )
        # The string to sign holds only what the client sent; OSS returns it too.
        shown = {"OSSAccessKeyId": key_id, "SignatureProvided": given[:128], **details}
        raise OssError("SignatureDoesNotMatch", message, shown)


def _time(text: bytes) -> datetime | None:
    value = text.decode("latin-1")
    try:
        if re.fullmatch(r"\d{8}T\d{6}Z", value, re.ASCII):
            return datetime.strptime(value, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        moment = parsedate_to_datetime(value)
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _expired(at_s: float) -> OssError:
    return OssError("AccessDenied", "Request has expired.", {"Expires": _iso(at_s)})


def _iso(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _shown(signed: bytes) -> str:
    return signed.decode("utf-8", "replace")
