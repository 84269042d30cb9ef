//! The log in its JetStream stream.
