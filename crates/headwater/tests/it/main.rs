//! The chassis against a real nats-server.
