"""The demonstration behind ``python -m peercore demo``: a web application under real HTTP traffic, good and bad."""
