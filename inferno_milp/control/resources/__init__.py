"""A problem as Kubernetes objects: definitions, reading, writing, what they are told, and watching them."""
