"""What a checkpoint of somebody else brings, looked at before anything trusts it."""
