"""How fast, how large and how hungry an artefact is, measured by MLCommons LoadGen."""
