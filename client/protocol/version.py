"""The one version of client, server and builders."""

VERSION = "0.2.0"
