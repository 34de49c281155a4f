"""An endpoint in the shape of Alibaba Cloud OSS: `x-oss-process=imm/detectface` on objects of configured buckets."""
