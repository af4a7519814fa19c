"""From a folder of videos to a feature store: decode, find faces, embed, write."""
