//! Secrets that are shown once or sit in a cookie, and what is kept of them.

use secrecy::SecretString;
use sha2::{Digest, Sha256};

use crate::outbound::Chance;

/// Letters of recovery codes: none that is mistaken for another (Crockford's base 32).
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Letters of one recovery code: 80 bits.
const RECOVERY_LENGTH: usize = 16;
/// Recovery codes of one set.
const RECOVERY_CODES: usize = 10;

/// 256 bits of chance as 64 hexadecimal digits: a session's token, a browser's mark.
pub fn new_token(chance: &dyn Chance) -> SecretString {
    let mut bytes = [0; 32];
    chance.fill(&mut bytes);
    hex::encode(bytes).into()
}

/// What is kept of a token. `None`: it was never one of ours, so that there is no need to look.
pub fn token_digest(token: &str) -> Option<[u8; 32]> {
    let form = token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    form.then(|| Sha256::digest(token).into())
}

/// Six digits, each number as likely as any other.
pub(in crate::people) fn new_code(chance: &dyn Chance) -> SecretString {
    loop {
        let mut bytes = [0; 4];
        chance.fill(&mut bytes);
        let number = u32::from_be_bytes(bytes);
        // The rest above the last whole million would make small numbers more likely.
        if number < u32::MAX - u32::MAX % 1_000_000 {
            return format!("{:06}", number % 1_000_000).into();
        }
    }
}

/// What is kept of a code: only with the browser's own secret can it be told again.
pub(in crate::people) fn code_digest(binding: &str, code: &str) -> [u8; 32] {
    Sha256::new().chain_update(binding).chain_update([0]).chain_update(code).finalize().into()
}

/// A fresh set of recovery codes, as people write them down: `abcd-efgh-jkmn-pqrs`.
pub(super) fn new_recovery_codes(chance: &dyn Chance) -> Vec<SecretString> {
    (0..RECOVERY_CODES)
        .map(|_| {
            let mut bytes = [0; RECOVERY_LENGTH];
            chance.fill(&mut bytes);
            let letters: Vec<u8> = bytes.iter().map(|byte| LETTERS[usize::from(byte & 31)]).collect();
            let groups: Vec<_> = letters.chunks(4).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
            groups.join("-").into()
        })
        .collect()
}

/// What is kept of a recovery code, however it was typed: capitals, blanks and hyphens do not matter, and `o`, `i`, `l`
/// are read as the digits that they look like. `None`: it is none.
pub(super) fn recovery_digest(typed: &str) -> Option<[u8; 32]> {
    let letters: String = typed
        .chars()
        .filter(|character| !matches!(character, ' ' | '-'))
        .map(|character| match character.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        })
        .collect();
    let form = letters.len() == RECOVERY_LENGTH && letters.bytes().all(|letter| LETTERS.contains(&letter));
    form.then(|| Sha256::digest(letters).into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use secrecy::ExposeSecret;

    use super::*;

    /// Gives out the numbers it was made with, then zeros.
    struct Fixed(Vec<u32>, AtomicU32);

    impl Chance for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            let at = self.1.fetch_add(1, Ordering::Relaxed) as usize;
            let number = self.0.get(at).copied().unwrap_or(0).to_be_bytes();
            for (byte, value) in bytes.iter_mut().zip(number.iter().cycle()) {
                *byte = *value;
            }
        }
    }

    fn chance(numbers: &[u32]) -> Fixed {
        Fixed(numbers.to_vec(), AtomicU32::new(0))
    }

    #[test]
    fn a_code_has_six_digits_and_no_favourites() {
        assert_eq!(new_code(&chance(&[1_000_042])).expose_secret(), "000042");
        // 4,294,000,000 and above are drawn again.
        assert_eq!(new_code(&chance(&[4_294_000_000, u32::MAX, 7])).expose_secret(), "000007");
        assert_ne!(code_digest("a", "1"), code_digest("b", "1"));
        assert_ne!(code_digest("a", "11"), code_digest("a1", "1"));
    }

    #[test]
    fn a_recovery_code_is_read_however_it_is_typed() {
        let codes = new_recovery_codes(&chance(&[0x0001_1f0a]));
        assert_eq!(codes.len(), RECOVERY_CODES);
        assert_eq!(codes[0].expose_secret(), "01za-01za-01za-01za");
        let kept = recovery_digest("01za-01za-01za-01za");
        assert!(kept.is_some());
        assert_eq!(recovery_digest(" OLZA 0iza-01zA01za"), kept);
        for none in ["", "01za-01za-01za", "01za-01za-01za-01za-0", "01za-01za-01za-01zu", "०१za-01za-01za-01za"] {
            assert_eq!(recovery_digest(none), None, "{none}");
        }
    }

    #[test]
    fn only_what_has_the_form_of_a_token_is_looked_up() {
        let token = new_token(&chance(&[0xdead_beef]));
        assert_eq!(token.expose_secret().len(), 64);
        assert!(token_digest(token.expose_secret()).is_some());
        for none in ["", "DEADBEEF", &token.expose_secret().to_uppercase(), &"g".repeat(64), &"a".repeat(65)] {
            assert_eq!(token_digest(none), None, "{none}");
        }
    }
}
