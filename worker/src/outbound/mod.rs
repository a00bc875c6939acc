//! The real outside behind the traits of `muneem_jobs::outbound`. Nothing else in this program opens a connection to
//! anybody but Postgres.

pub mod anchor;
pub mod chance;
pub mod clock;
pub mod http;
pub mod kms_file;
pub mod mail;
pub mod object_store;
pub mod whatsapp;
