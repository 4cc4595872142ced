"""The bundle that is shipped: models, manifest, model card, browser package, Python wheel, demo and report."""
