"""A server that speaks S3 on loopback: moto's, as a process, which checks signatures and policies."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import boto3
import httpx
from botocore.config import Config

from tests.support.broker import free_port
from tests.support.process import ManagedProcess
from tests.support.waiting import until

START_S = 60.0
REGION = "eu-central-1"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """What a client signs with."""

    id: str
    secret: str


class S3Server:
    """A running server; use it in a `with` block.

    Attributes:
        endpoint: Its URL.
        owner: May do everything.
        reader: May read the objects of the buckets that are named `pictures`.
    """

    def __enter__(self) -> Self:
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.process = ManagedProcess(command)
        try:
            until(lambda: httpx.get(f"{self.endpoint}/moto-api/data.json", trust_env=False).is_success, START_S)
            self.owner = self._user("owner", ["s3:*"], "*")
            self.reader = self._user("reader", ["s3:GetObject", "s3:ListBucket"], "arn:aws:s3:::pictures*")
            # From here on nothing is done without a good signature.
            httpx.post(f"{self.endpoint}/moto-api/reset-auth", content=b"0", trust_env=False).raise_for_status()
            self._s3 = self._client("s3", self.owner)
        except BaseException:
            self.process.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._s3.close()
        self.process.stop()

    def make_bucket(self, bucket: str) -> None:
        """Make an empty bucket."""
        self._s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})

    def put(self, bucket: str, key: str, data: bytes, **more: str) -> None:
        """Store an object; more are options of `put_object`."""
        self._s3.put_object(Bucket=bucket, Key=key, Body=data, **more)

    def _user(self, name: str, actions: list[str], resource: str) -> AccessKey:
        iam = self._client("iam", AccessKey("nobody", "nothing"))
        try:
            iam.create_user(UserName=name)
            statement = {"Effect": "Allow", "Action": actions, "Resource": resource}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=policy)
            key = iam.create_access_key(UserName=name)["AccessKey"]
        finally:
            iam.close()
        return AccessKey(key["AccessKeyId"], key["SecretAccessKey"])

    def _client(self, service: str, key: AccessKey) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
            config=Config(proxies={}, s3={"addressing_style": "path"}),
        )
