"""An endpoint in the shape of Alibaba Cloud OSS: `x-oss-process=imm/detectface` on objects of configured buckets."""

from visaged.daemon.oss.app import create_oss_app
from visaged.daemon.oss.settings import OssSettings

__all__ = ["OssSettings", "create_oss_app"]
