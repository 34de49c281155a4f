"""The OSS-compatible endpoint: from a request to its answer.

It runs on a port of its own, because OSS's clients send only `/<bucket>/<key>` (or `/<key>` with the bucket in the Host
header): oss2 and alibabacloud-oss-v2 both drop a path in the endpoint's URL, and sign `/<bucket>/<key>` in any case. It
shares the event loop of the other HTTP servers, because `Pictures` works in one loop only.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from urllib.parse import unquote

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from visaged.daemon.api.aliyun_oss import answers
from visaged.daemon.api.aliyun_oss.bucket import Bucket
from visaged.daemon.api.aliyun_oss.buckets import open_bucket, read_all
from visaged.daemon.api.aliyun_oss.errors import OssError, error_response
from visaged.daemon.api.aliyun_oss.objects import check_conditions, get_response, head_response
from visaged.daemon.api.aliyun_oss.requests import HostRouter, OssRequest, read_request
from visaged.daemon.api.aliyun_oss.settings import ATTRIBUTES, OssSettings
from visaged.daemon.api.aliyun_oss.signature import Verifier
from visaged.daemon.api.pictures import Pictures
from visaged.daemon.http.browsers.headers import RESOURCE_POLICY, SAFE
from visaged.daemon.http.problems import Problem
from visaged.daemon.http.request_log import rename_request
from visaged.pipelines.images.job import PictureQuery
from visaged.pipelines.runtime.metrics import Metrics

log = logging.getLogger(__name__)

MAX_PICTURE_BYTES = 20 * 2**20
"""Largest picture in bytes that OSS processes."""

_ANSWERS: dict[str, Callable[..., answers.Document]] = {
    "imm/detectface": answers.detectface,
    "imm/detecface": answers.detectface,  # as one page of OSS's documents spells it
    "image/faces": answers.figures,
}
# Objects come from anybody who can write to a bucket. Should a browser render one all the same, it has no origin and
# runs no script (`sandbox`); images and other media are still shown.
_SAFE = {**SAFE, "Content-Security-Policy": "sandbox"}
# Query parameters of OSS operations that are not served here.
_ELSEWHERE = frozenset(
    {b"acl", b"append", b"callback", b"delete", b"restore", b"symlink", b"tagging", b"uploadId", b"uploads",
     b"versionId", b"x-oss-async-process"}
)  # fmt: skip


class OssApp:
    """The endpoint, as an ASGI application.

    Args:
        pictures: Analyses pictures.
        settings: Buckets, keys and host names.
        metrics: Counts requests.
        version: Version of the daemon.
        clock: Returns seconds since 1970, for signatures.

    Raises:
        ValueError: A secret cannot be read; the text names it.
    """

    def __init__(
        self,
        pictures: Pictures,
        settings: OssSettings,
        metrics: Metrics,
        version: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pictures = pictures
        self._switched_on = frozenset(name for name in ATTRIBUTES if settings.attributes.get(name, True))
        self._most_bytes = min(MAX_PICTURE_BYTES, pictures.most_bytes)
        self._buckets: dict[str, Bucket] = {bucket.name: open_bucket(bucket, settings) for bucket in settings.buckets}
        self._public = frozenset(bucket.name for bucket in settings.buckets if bucket.public_read)
        domains = {domain: bucket.name for bucket in settings.buckets for domain in bucket.domains}
        self._names = HostRouter(settings.endpoints, domains)
        keys = {key.access_key_id: key.secret() for key in settings.keys}
        self._has_keys = bool(keys)
        self._verifier = Verifier(keys, settings.region, clock)
        self._embedding = settings.embedding
        self._server = f"visaged/{version}"
        self._requests = metrics.oss_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the OSS endpoint speaks HTTP alone, not {scope['type']}")
        began_s = time.monotonic()
        request_id = secrets.token_hex(12).upper()
        rename_request(scope, request_id)
        operation = "other"
        try:
            request = read_request(scope, self._names)
            operation = _operation(request)
            response, code = await self._answer(request, operation, request_id), "OK"
        except Exception as error:
            known = _as_oss_error(error)
            if known is None:
                # The query may hold a signature; the path is enough to find the fault.
                log.error("%s of an object failed", operation, exc_info=error)
                known = OssError("InternalError", "We encountered an internal error. Please try again.")
            host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
            response, code = error_response(known, request_id, host, scope["method"] == "HEAD"), known.code
        self._requests.labels(operation, code).inc()
        log.debug("%s %s: %s", request_id, operation, code)
        response.headers["x-oss-request-id"] = request_id
        response.headers["x-oss-server-time"] = str(round((time.monotonic() - began_s) * 1000))
        response.headers["server"] = self._server
        for name, value in _SAFE.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _answer(self, request: OssRequest, operation: str, request_id: str) -> Response:
        if request.method not in ("GET", "HEAD"):
            text = "The specified method is not allowed against this resource: objects are read here, not written."
            details = {"Method": request.method, "ResourceType": "OBJECT" if request.key else "BUCKET"}
            raise OssError("MethodNotAllowed", text, details, {"Allow": "GET, HEAD"})
        is_signed = self._verifier.verify(request)
        if not is_signed and not self._names.knows(request.host):
            text = (
                "The endpoint is not known under this name; list it in oss.endpoints, ask for an IP address or "
                "localhost, or sign the request with a key of oss.keys."
            )
            raise OssError("AccessDenied", text)
        if not is_signed and self._has_keys and request.bucket not in self._public:
            # The answer must not show whether the bucket exists to clients that may not read it.
            raise OssError("AccessDenied", "You have no right to access this object because of bucket acl.")
        if not request.bucket:
            raise OssError("NotImplemented", "Buckets are not listed here; ask for /<bucket>/<key>.")
        bucket = self._buckets.get(request.bucket)
        if bucket is None:
            details = {"BucketName": request.bucket}
            raise OssError("NoSuchBucket", "The specified bucket does not exist.", details)
        if not request.key:
            raise OssError("NotImplemented", "Objects are not listed here; ask for one by its key.")
        for name, _ in request.query:
            if name in _ELSEWHERE:
                text = f"{name.decode()} is not served here: objects are read, whole or in part, and analysed."
                raise OssError("NotImplemented", text)
        key = request.key_text()
        if operation in ("get", "head"):
            response = await run_in_threadpool(_read, bucket, key, request, is_signed)
            response.headers[RESOURCE_POLICY] = self._embedding or ("cross-origin" if is_signed else "same-origin")
            return response
        if request.page is not None and not is_signed:
            text = f"{request.page}; such pages may have objects processed by signed requests alone."
            raise OssError("AccessDenied", text[0].upper() + text[1:])
        return await self._process(bucket, key, request, request_id)

    async def _process(self, bucket: Bucket, key: str, request: OssRequest, request_id: str) -> Response:
        process = _process_of(request)
        assert process is not None
        if not process:
            raise OssError("MissingArgument", "Missing Some Required Arguments.", {"ArgumentName": "x-oss-process"})
        describe = _ANSWERS.get(process) or _ANSWERS.get(unquote(process))
        if describe is None:
            names = " and ".join(("imm/detectface", "image/faces"))
            details = {"ArgumentName": "x-oss-process", "ArgumentValue": process[:256]}
            raise OssError("InvalidArgument", f"The operation is not supported; there are {names}.", details)
        meta = await run_in_threadpool(bucket.head, key)
        if meta.size > self._most_bytes:
            text = f"The image file is too large: {meta.size} bytes; at most {self._most_bytes} are taken."
            raise OssError("ImageTooLarge", text)
        async with self._pictures.request() as upload:
            upload.add(meta.size)
            try:
                data = await run_in_threadpool(read_all, bucket, key, self._most_bytes)
            except OssError as error:
                if error.code == "EntityTooLarge":
                    raise OssError("ImageTooLarge", error.message) from None
                raise
            query = PictureQuery(self._pictures.threshold, self._pictures.attributes & self._switched_on, unsure=True)
            result = await self._pictures.analyse(data, query)
        document = describe(result, data, f"oss://{request.bucket}/{key}", request_id)
        # Keys in alphabetical order, as in the sample of OSS's document.
        return Response(orjson.dumps(document, option=orjson.OPT_SORT_KEYS), media_type="application/json")


def _read(bucket: Bucket, key: str, request: OssRequest, is_signed: bool) -> Response:
    if request.method == "HEAD":
        meta = bucket.head(key)
        return check_conditions(request, meta) or head_response(request, meta, is_signed)
    stored = bucket.open(key)
    try:
        response = check_conditions(request, stored.meta)
        if response is None:
            return get_response(request, stored, is_signed)
    except BaseException:
        stored.close()
        raise
    stored.close()
    return response


def _process_of(request: OssRequest) -> str | None:
    value = request.argument(b"x-oss-process")
    return None if value is None else value.decode("utf-8", "replace")


def _operation(request: OssRequest) -> str:
    """Return the operation of a request, as a label of few values; HEAD ignores `x-oss-process`."""
    if request.method == "HEAD":
        return "head"
    if request.method != "GET":
        return "other"
    process = _process_of(request)
    if process is None:
        return "get"
    describe = _ANSWERS.get(unquote(process))
    return "process" if describe is None else describe.__name__


def _as_oss_error(error: Exception) -> OssError | None:
    if isinstance(error, OssError):
        return error
    if not isinstance(error, Problem):
        return None
    match error.kind:
        case "picture-too-large":
            return OssError("ImageTooLarge", f"The image is too large: {error.detail}.")
        case "picture-empty" | "picture-unsupported" | "picture-damaged":
            return OssError("BadRequest", f"This image format is not supported: {error.detail}.")
    if error.status == 503:
        headers = {"Retry-After": "1"} | dict(error.headers or {})
        return OssError("ServiceUnavailable", f"Please reduce your request rate: {error.detail}.", headers=headers)
    if error.status >= 500:
        return OssError("InternalError", "We encountered an internal error. Please try again.")
    return OssError("BadRequest", error.detail)
