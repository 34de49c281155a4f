"""The keys of `oss`: address, buckets and access keys of the OSS-compatible endpoint."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    SecretStr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from visaged.daemon.config.base import HostName, Name, fitting, is_loopback
from visaged.daemon.config.document import ConfigProblem
from visaged.daemon.config.secrets import Secret
from visaged.daemon.config.tls import TlsError, TlsSettings
from visaged.daemon.fetch.settings import S3_MISSING, S3Settings
from visaged.pipelines.runtime.config import StrictConfig

ATTRIBUTES = frozenset(
    {
        "age", "attractiveness", "beard", "blur", "emotion", "gender", "glasses", "hat", "head_pose", "left_eye",
        "mask", "right_eye",
    }
)  # fmt: skip
"""The attributes that have a field in the answers of this endpoint."""


def _schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


_BUCKET = "[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"
_ACCESS_KEY_ID = r"[\x21-\x2b\x2d-\x39\x3b-\x7e]{1,128}"
_REGION = "[a-z0-9-]{1,64}"


class BucketSettings(StrictConfig):
    """A bucket: a folder, a list of files, or a bucket of an S3-compatible store."""

    name: Annotated[
        str,
        fitting(_BUCKET, "3 to 63 lower-case letters, digits and, inside, hyphens"),
        _schema(_BUCKET),
    ]
    """Name by which clients know the bucket: 3 to 63 lower-case letters, digits and hyphens, as in OSS."""
    folder: Path | None = None
    """Folder whose files are the objects; the key `a/b.jpg` is the file `b.jpg` in its folder `a`. Hidden files and
    folders (with a leading dot) are not served, nor is what symbolic links reach by a way out of the folder."""
    objects: dict[str, Path] | None = None
    """Files that are the objects, by the keys by which clients know them."""
    s3: S3Settings | None = None
    """S3-compatible store that holds the objects."""
    s3_bucket: Annotated[str, Field(min_length=1)] | None = None
    """Name of the bucket in the store; null if it is the same as `name`."""
    domains: list[HostName] = Field([])
    """Host names that mean this bucket alone, as a CNAME does with OSS."""
    public_read: bool = False
    """Whether requests without a signature are answered although `keys` are configured."""

    @field_validator("objects")
    @classmethod
    def _keys(cls, objects: dict[str, Path] | None) -> dict[str, Path] | None:
        for key in objects or {}:
            if not key or len(key.encode()) > 1023:
                raise ValueError(f"{key[:40]!r} is no key; a key has 1 to 1023 bytes")
        return objects

    @model_validator(mode="after")
    def _one_place(self) -> BucketSettings:
        given = [name for name in ("folder", "objects", "s3") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of folder, objects and s3, not {' and '.join(given) or 'none'}")
        if self.s3_bucket is not None and self.s3 is None:
            raise ValueError("s3_bucket is given, but no s3")
        return self

    def missing(self) -> str | None:
        """Return a text that names a folder or file of the bucket that cannot be found; None if there is none."""
        # The functions of `os.path` return False without permission; the methods of `Path` raise.
        if self.folder is not None and not os.path.isdir(self.folder):
            return f"folder {self.folder} does not exist, is no folder, or may not be looked at"
        for key, path in (self.objects or {}).items():
            if not os.path.isfile(path):
                return f"objects: {path} (key {key}) does not exist, is no file, or may not be looked at"
        return None


class AccessKeySettings(StrictConfig):
    """An access key that requests may be signed with."""

    name: Name
    """Name of the key, such as that of its holder; only for people."""
    access_key_id: Annotated[
        str,
        fitting(_ACCESS_KEY_ID, "1 to 128 ASCII characters without spaces, commas and colons"),
        _schema(_ACCESS_KEY_ID),
    ]
    """Id that clients send, without spaces, commas and colons. Make one up: no key of Alibaba Cloud is needed."""
    access_key_secret: SecretStr | None = None
    """Secret in plain text; `access_key_secret_file` and `access_key_secret_env` keep it out of this file."""
    access_key_secret_file: Path | None = None
    """File whose first line is the secret; its line ending and a byte order mark are left out, spaces are kept."""
    access_key_secret_env: str | None = None
    """Environment variable whose value is the secret."""

    @model_validator(mode="after")
    def _one_secret(self) -> AccessKeySettings:
        Secret.required(self, "access_key_secret")
        return self

    def secret(self) -> str:
        """Return the secret.

        Raises:
            ValueError: The file or variable that should hold the secret does not; the text names it.
        """
        return Secret.required(self, "access_key_secret").read()


class OssSettings(StrictConfig):
    """The endpoint that answers clients of Alibaba Cloud OSS: `GET /<bucket>/<key>?x-oss-process=imm/detectface`."""

    enabled: bool = False
    """Whether the endpoint is served."""
    host: str = "127.0.0.1"
    """Address to listen on. Beyond loopback it takes `keys`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """Port to listen on; 0 for any free one. It is not that of `http`, because OSS clients drop a path in the
    endpoint's URL and send only `/<bucket>/<key>`."""
    tls: TlsSettings | None = None
    """Certificate and key for HTTPS, which clients use if the endpoint's URL has no scheme; null for HTTP."""
    endpoints: list[HostName] = Field(["localhost"])
    """Host names by which clients know the endpoint; `<bucket>.<name>` means the bucket (virtual-host style). For the
    names themselves, localhost and IP addresses, the bucket is the first part of the path (path style); for all other
    names too, under which only requests with a signature are answered."""
    region: Annotated[str, fitting(_REGION, "a region such as cn-hangzhou"), _schema(_REGION)] | None = None
    """Only region for which V4 signatures are accepted, such as `cn-hangzhou`; null for any."""
    buckets: list[BucketSettings] = Field([])
    """The buckets."""
    keys: list[AccessKeySettings] = Field([])
    """The access keys. Without any, every request is answered, signed or not; that is for loopback alone."""
    embedding: Literal["same-origin", "same-site", "cross-origin"] | None = None
    """Web pages that may show objects, say as images: those of this endpoint (`same-origin`), of its site, or all
    (`cross-origin`). null: all pages for signed requests, whose URL no other page knows, and none of other origins for
    requests without a signature. Browsers read it in the header Cross-Origin-Resource-Policy."""
    attributes: dict[str, bool] = Field({})
    """Attributes switched on or off in the answers of this endpoint; attributes that are not named are on."""
    max_object_mb: Annotated[float, Field(ge=0.001, le=1000)] = 100
    """Largest object of an `s3` bucket in megabytes; it is held in memory while it is sent."""
    store_timeout_s: Annotated[float, Field(ge=0.001, le=300)] = 10.0
    """Longest time in seconds for one answer of an `s3` store."""

    @field_validator("attributes")
    @classmethod
    def _known(cls, attributes: dict[str, bool]) -> dict[str, bool]:
        unknown = sorted(set(attributes) - ATTRIBUTES)
        if unknown:
            raise ValueError(f"there is no attribute {', '.join(unknown)}; known are {', '.join(sorted(ATTRIBUTES))}")
        return attributes

    @model_validator(mode="after")
    def _fits_together(self) -> OssSettings:
        hosts = Counter([*self.endpoints, *(domain for bucket in self.buckets for domain in bucket.domains)])
        for what, counted in (
            ("buckets: more than one is named", Counter(bucket.name for bucket in self.buckets)),
            ("keys: more than one is named", Counter(key.name for key in self.keys)),
            ("keys: more than one has the access_key_id", Counter(key.access_key_id for key in self.keys)),
            ("endpoints and domains: more than one is", hosts),
        ):
            double = sorted(name for name, n in counted.items() if n > 1)
            if double:
                raise ValueError(f"{what} {', '.join(double)}")
        if not self.keys and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached from other machines, and there are no keys: give keys, or set host "
                "to 127.0.0.1"
            )
        return self


def check(settings: OssSettings) -> list[ConfigProblem]:
    """Return what is wrong with what the settings refer to: folders, files, certificates and secrets."""
    problems = []
    try:
        if settings.tls is not None:
            settings.tls.context()
    except TlsError as error:
        problems.append(ConfigProblem("oss.tls", str(error)))
    for index, bucket in enumerate(settings.buckets):
        path = f"oss.buckets[{index}]"
        missing = bucket.missing()
        if missing is not None:
            problems.append(ConfigProblem(path, missing))
        if bucket.s3 is not None:
            if importlib.util.find_spec("botocore") is None:
                problems.append(ConfigProblem(f"{path}.s3", S3_MISSING))
            try:
                bucket.s3.secret()
            except ValueError as error:
                problems.append(ConfigProblem(f"{path}.s3", str(error)))
    for index, key in enumerate(settings.keys):
        try:
            key.secret()
        except ValueError as error:
            problems.append(ConfigProblem(f"oss.keys[{index}]", str(error)))
    return problems
