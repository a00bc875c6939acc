//! The API, the webhooks in, health and metrics.

pub mod whatsapp;
