"""Opens the buckets of the configuration."""

from __future__ import annotations

from contextlib import closing

from visaged.daemon.api.aliyun_oss.bucket import Bucket
from visaged.daemon.api.aliyun_oss.files import FileBucket, FolderBucket
from visaged.daemon.api.aliyun_oss.settings import BucketSettings, OssSettings
from visaged.daemon.api.aliyun_oss.store import S3Bucket
from visaged.daemon.fetch.s3 import S3Client


def open_bucket(settings: BucketSettings, oss: OssSettings) -> Bucket:
    """Return a bucket for its settings."""
    if settings.folder is not None:
        return FolderBucket(settings.folder)
    if settings.objects is not None:
        return FileBucket(settings.objects)
    assert settings.s3 is not None
    client = S3Client(settings.s3, f"oss.buckets[{settings.name}].s3")
    return S3Bucket(client, settings.s3_bucket or settings.name, int(oss.max_object_mb * 1e6), oss.store_timeout_s)


def read_all(bucket: Bucket, key: str, most_bytes: int) -> bytes:
    """Return an object's bytes; raises `OssError`."""
    with closing(bucket.open(key, most_bytes)) as stored:
        return b"".join(stored.read(0, stored.meta.size))
