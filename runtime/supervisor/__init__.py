"""Starting, watching and stopping a tritonserver: the bundled one or the container's."""
