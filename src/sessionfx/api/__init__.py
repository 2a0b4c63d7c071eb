"""The public face of the package; use it as `import sessionfx`."""
