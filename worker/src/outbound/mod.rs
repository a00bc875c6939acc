//! The real outside behind the traits of `muneem_jobs::outbound`. Nothing else in this program opens a connection to
//! anybody but Postgres.

pub mod object_store;
