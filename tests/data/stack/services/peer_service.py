"""Delivers messages to peers of this process."""


class PeerService:
    def __init__(self, entity_id):
        self.entity_id = entity_id
        self.peers = {}

    def connect(self, entity_id, inbox):
        self.peers[entity_id] = inbox

    def send(self, entity_id, message):
        self.peers[entity_id].append(message)
