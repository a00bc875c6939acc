//! Chance from the operating system.

use muneem_jobs::outbound::Chance;
use rand::Rng;

/// The thread's cryptographically secure generator, seeded and reseeded by the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsChance;

impl Chance for OsChance {
    #[expect(clippy::disallowed_methods, reason = "the one home of chance")]
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}
