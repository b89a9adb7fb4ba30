"""The project that ``slimline init`` lays into a repository: dvc.yaml, params.yaml and stages/."""
