use std::fmt;

/// An e-mail address, personal data: it shows itself to nobody but the mail server.
///
/// Taken are dot-atoms of ASCII before the `@` (RFC 5321 section 4.1.2) and host names with a dot after it; quoted
/// local parts, comments and address literals are not, since no person writes them and much else stumbles over them.
/// A domain in another script becomes its A-labels (RFC 5891); letters of another script before the `@` would need
/// SMTPUTF8 (RFC 6531) at every server on the way, and are refused.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email {
    local: String,
    domain: String,
}

/// Not an e-mail address as people have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no e-mail address: write it like asha@example.in, with Latin letters before the @")]
pub struct NotAnEmail;

impl Email {
    /// Reads an address. The domain becomes lower case and ASCII; the part before the `@` stays as it is, since it is
    /// the receiving server's business.
    ///
    /// # Errors
    /// [`NotAnEmail`]
    pub fn parse(text: &str) -> Result<Self, NotAnEmail> {
        let (local, domain) = text.split_once('@').ok_or(NotAnEmail)?;
        // Longer than any domain in any script; what follows need not look at more.
        if domain.len() > 1_000 {
            return Err(NotAnEmail);
        }
        let domain = if domain.is_ascii() {
            domain.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_strict(domain).map_err(|_| NotAnEmail)?
        };
        let atoms = local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom));
        let labels = domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        });
        // A top-level domain of digits would be an IPv4 address.
        let top = domain.rsplit('.').next().is_some_and(|top| top.bytes().any(|byte| byte.is_ascii_alphabetic()));
        if local.len() <= 64 && domain.len() <= 189 && domain.contains('.') && atoms && labels && top {
            Ok(Self { local: local.to_owned(), domain })
        } else {
            Err(NotAnEmail)
        }
    }

    /// The address, for the mail server and the vault.
    pub fn expose(&self) -> String {
        format!("{}@{}", self.local, self.domain)
    }

    /// What stands behind the `@`, in lower case.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Enough for its owner to recognise it, too little for anybody else: `a…@example.in`.
    pub fn hint(&self) -> String {
        format!("{}…@{}", self.local.chars().next().unwrap_or('…'), self.domain)
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

/// `atext` of RFC 5322 section 3.2.3.
fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atk_033_addresses_are_read_as_people_write_them_and_shown_to_nobody() {
        let asha = Email::parse("asha.verma+till@Example.IN").expect("an address");
        assert_eq!(asha.expose(), "asha.verma+till@example.in");
        assert_eq!(asha.hint(), "a…@example.in");
        assert_eq!(format!("{asha:?}"), "Email(…)");
        let long = format!("{}@example.in", "a".repeat(65));
        for bad in [
            "",
            "asha",
            "@example.in",
            "asha@",
            "asha@example",
            "asha@@example.in",
            "a sha@example.in",
            "asha@exam_ple.in",
            "asha@-example.in",
            ".asha@example.in",
            "asha..v@example.in",
            "asha@10.0.0.1",
            "asha@[10.0.0.1]",
            "\"asha\"@example.in",
            "asha@example.in\r\nBcc: b@example.in",
            "asha@example.in,b@c.in",
            "<asha@example.in>",
            "आशा@example.in",
            "asha@example..in",
            &long,
        ] {
            assert_eq!(Email::parse(bad), Err(NotAnEmail), "{bad}");
        }
    }

    #[test]
    fn atk_033_a_domain_in_another_script_becomes_its_ascii_form_and_a_forged_one_is_none() {
        let shop = Email::parse("asha@दुकान.भारत").expect("an address");
        assert_eq!(shop.expose(), "asha@xn--11b7ah1gn.xn--h2brj9c");
        assert_eq!(Email::parse("asha@xn--11b7ah1gn.XN--h2brj9c"), Ok(shop));
        // Right-to-left override, a soft hyphen's cousin, a fullwidth @ and a line separator.
        for bad in
            ["asha@exa\u{202e}mple.in", "asha@example\u{2028}.in", "asha＠example.in", "asha@दुकान", "asha@\u{200b}.in"]
        {
            assert_eq!(Email::parse(bad), Err(NotAnEmail), "{bad:?}");
        }
    }
}
