"""One observed run of a pipeline: the call, the attachment, what is recorded."""
