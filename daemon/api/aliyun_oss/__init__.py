"""An endpoint compatible with Alibaba Cloud OSS: `x-oss-process=imm/detectface` on objects of configured buckets."""
