use chrono::{DateTime, Utc};

/// What time it is, in UTC. The only source of "now" for due dates, run-at and evidence; leases alone use the
/// database's own time, since several machines must agree on them.
pub trait Clock: Send + Sync + 'static {
    /// The present instant; in sandbox mode moved by the offset that `muneem.now()` applies too.
    fn now(&self) -> DateTime<Utc>;
}
