//! Methods by a name of a closed list: what somebody makes up is a method too, and would be a measure, a line of the log
//! and a record of its own each time.

use axum::http::Method;

/// The method's name, or `OTHER`.
pub(crate) fn name_of(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_has_one_name() {
        for known in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] {
            assert_eq!(name_of(&known.parse().expect("a method")), known);
        }
        for other in ["AAA1", "AAA2", "G!T", "get", "TRACE", "CONNECT", &"A".repeat(400)] {
            assert_eq!(name_of(&other.parse().expect("a method")), "OTHER", "{other}");
        }
    }
}
