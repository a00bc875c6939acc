//! The real outside behind the traits of `muneem_jobs::outbound`. Nothing else in this program opens a connection to
//! anybody but Postgres.

pub mod anchor;
pub mod anchor_mail;
pub mod anchor_objects;
pub mod anchor_timestamp;
pub mod chance;
pub mod clock;
pub mod http;
pub mod kms;
pub mod kms_aws;
pub mod kms_azure;
pub mod kms_call;
pub mod kms_file;
pub mod kms_gcp;
#[cfg(test)]
mod kms_tests;
pub mod kms_transit;
pub mod mail;
pub mod mailbox;
pub mod object_store;
pub mod oidc;
pub mod webhook;
pub mod whatsapp;
