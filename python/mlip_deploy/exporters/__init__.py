"""Export: a checkpoint of a training framework becomes an artifact. One adapter per family, one shared wrapper.

`mlip_deploy.export` writes a published model or a checkpoint, `mlip_deploy.export_module` an nn.Module of your own.
"""
