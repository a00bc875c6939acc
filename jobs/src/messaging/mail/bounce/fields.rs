//! Fields like headers, in blocks between empty lines (RFC 3464 section 2.1, RFC 5965 section 3).

/// Blocks and fields that are looked at.
const MOST: usize = 64;
/// Longest value, in bytes.
const LONGEST: usize = 2_000;

/// One block: names in lower case, values unfolded.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn blocks(bytes: &[u8]) -> Vec<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut blocks = vec![Self::default()];
        for line in text.lines() {
            let Some(block) = blocks.last_mut() else { break };
            if line.trim().is_empty() {
                if !block.0.is_empty() {
                    if blocks.len() == MOST {
                        break;
                    }
                    blocks.push(Self::default());
                }
            } else if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = block.0.last_mut()
                    && value.len() + line.len() < LONGEST
                {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':')
                && block.0.len() < MOST
                && value.len() < LONGEST
            {
                block.0.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        blocks.retain(|block| !block.0.is_empty());
        blocks
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// `5.1.1` at the head of a text, which may go on with a comment.
pub(super) fn enhanced_status(text: &str) -> Option<String> {
    let marks = ['#', '(', ')', '[', ']', '\'', '"', ',', ':', ';'];
    let word = text.trim_start_matches(marks).split([' ', '\t', '(']).next()?.trim_end_matches(marks);
    let mut parts = word.split('.');
    let class = parts.next().filter(|class| matches!(*class, "2" | "4" | "5"))?;
    let number = |part: Option<&str>| -> Option<u16> {
        let part = part?;
        ((1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok())?
    };
    let (subject, detail) = (number(parts.next())?, number(parts.next())?);
    parts.next().is_none().then(|| format!("{class}.{subject}.{detail}"))
}

/// The first reply code in a text: `smtp; 550 no such user`, `550-5.1.1`.
pub(super) fn reply_code(text: &str) -> Option<u16> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.');
    words.filter(|word| word.len() == 3).find_map(|word| word.parse().ok().filter(|code| (400..600).contains(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_where_they_stand_and_nowhere_else() {
        for (text, status) in [
            ("5.1.1", Some("5.1.1")),
            ("5.1.1 (no such mailbox)", Some("5.1.1")),
            ("(#5.1.1)", Some("5.1.1")),
            ("4.07.26", Some("4.7.26")),
            ("3.1.1", None),
            ("5.1", None),
            ("5.1.1.1", None),
            ("5.1.1000", None),
            ("10.0.0.1", None),
            ("", None),
        ] {
            assert_eq!(enhanced_status(text).as_deref(), status, "{text}");
        }
        assert_eq!(reply_code("smtp; 550-5.1.1 no such user"), Some(550));
        assert_eq!(reply_code("smtp;452 later"), Some(452));
        assert_eq!(reply_code("said 12345 or 200"), None);
    }
}
