//! Words as the phone shows them: with the chat's own marks for bold, italic, struck and fixed, and with links.

use serde::Serialize;

/// A piece of text in one look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Piece {
    pub(super) text: String,
    /// `b`, `i`, `s` or `code`; empty: as it is.
    pub(super) look: &'static str,
    /// Where it leads, if it is a link.
    pub(super) href: Option<String>,
}

fn plain(text: &str, look: &'static str) -> Piece {
    Piece { text: text.to_owned(), look, href: None }
}

/// Takes a text apart.
pub(super) fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((at, mark, look)) = next_mark(rest) else { break };
        let inside = &rest[at + mark.len()..];
        let Some(end) = closing(inside, mark) else {
            // No pair: it is only a sign.
            links(&rest[..at + mark.len()], "", &mut pieces);
            rest = inside;
            continue;
        };
        links(&rest[..at], "", &mut pieces);
        pieces.push(plain(&inside[..end], look));
        rest = &inside[end + mark.len()..];
    }
    links(rest, "", &mut pieces);
    pieces
}

/// The first mark that may open something: it stands at the beginning or behind a space or sign.
fn next_mark(text: &str) -> Option<(usize, &'static str, &'static str)> {
    let marks = [("```", "code"), ("*", "b"), ("_", "i"), ("~", "s")];
    let opens = |at: usize| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && !matches!(before, '/' | '=' | '_' | '-' | '&' | '?'))
    };
    let mut found: Option<(usize, &str, &str)> = None;
    for (mark, look) in marks {
        let first = text.match_indices(mark).map(|(at, _)| at).find(|at| opens(*at));
        if let Some(at) = first
            && found.is_none_or(|(earlier, ..)| at < earlier)
        {
            found = Some((at, mark, look));
        }
    }
    found
}

fn closing(inside: &str, mark: &str) -> Option<usize> {
    let end = inside.find(mark)?;
    let content = &inside[..end];
    let good = !content.is_empty() && !content.starts_with(' ') && !content.ends_with(' ') && !content.contains('\n');
    let after = inside[end + mark.len()..].chars().next();
    (good && after.is_none_or(|after| !after.is_alphanumeric())).then_some(end)
}

/// Text with its web addresses as links.
fn links(text: &str, look: &'static str, pieces: &mut Vec<Piece>) {
    let mut rest = text;
    while let Some(at) = [rest.find("https://"), rest.find("http://")].into_iter().flatten().min() {
        let end = rest[at..].find(char::is_whitespace).map_or(rest.len(), |end| at + end);
        let url = rest[at..end].trim_end_matches(['.', ',', ';', ')', '!']);
        let end = at + url.len();
        if at > 0 {
            pieces.push(plain(&rest[..at], look));
        }
        pieces.push(Piece { text: url.to_owned(), look, href: Some(url.to_owned()) });
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        pieces.push(plain(rest, look));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(String, &'static str, bool)> {
        pieces(text).into_iter().map(|piece| (piece.text, piece.look, piece.href.is_some())).collect()
    }

    #[test]
    fn marks_in_pairs_change_the_look_and_single_ones_are_signs() {
        let piece = |text: &str, look, link| (text.to_owned(), look, link);
        assert_eq!(
            told("a *b* _c_"),
            [piece("a ", "", false), piece("b", "b", false), piece(" ", "", false), piece("c", "i", false)]
        );
        assert_eq!(told("2 * 3 = 6").concat_text(), "2 * 3 = 6");
        assert_eq!(told("~x~"), [piece("x", "s", false)]);
        assert_eq!(told("```a_b```"), [piece("a_b", "code", false)]);
        assert_eq!(
            told("see https://a.example/x_y_z?t=1. Bye"),
            [piece("see ", "", false), piece("https://a.example/x_y_z?t=1", "", true), piece(". Bye", "", false)]
        );
        assert!(pieces("javascript:alert(1)").iter().all(|piece| piece.href.is_none()));
    }

    trait Concat {
        fn concat_text(&self) -> String;
    }

    impl Concat for Vec<(String, &'static str, bool)> {
        fn concat_text(&self) -> String {
            self.iter().map(|(text, ..)| text.as_str()).collect()
        }
    }
}
