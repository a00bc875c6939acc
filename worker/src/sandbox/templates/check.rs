//! What the carrier refuses to take as a template (Cloud API, error codes of template creation).

use serde::Deserialize;
use serde_json::Value;

use super::{
    super::refused::{Refused, refuse, refuse_template},
    shape::{component, variables, word},
};

/// Languages that a template may be in.
const LANGUAGES: &[&str] = &[
    "af", "ar", "az", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "en_GB", "en_IN", "en_US", "es", "es_AR",
    "es_ES", "es_MX", "et", "fa", "fi", "fil", "fr", "ga", "gu", "ha", "he", "hi", "hr", "hu", "id", "it", "ja", "ka",
    "kk", "kn", "ko", "ky_KG", "lo", "lt", "lv", "mk", "ml", "mr", "ms", "nb", "nl", "pa", "pl", "pt_BR", "pt_PT",
    "ro", "ru", "rw_RW", "sk", "sl", "sq", "sr", "sv", "sw", "ta", "te", "th", "tr", "uk", "ur", "uz", "vi", "zh_CN",
    "zh_HK", "zh_TW", "zu",
];

/// What is submitted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Submission {
    pub(super) name: Option<String>,
    pub(super) language: Option<String>,
    pub(super) category: Option<String>,
    pub(super) parameter_format: Option<String>,
    pub(super) components: Option<Vec<Value>>,
    pub(super) message_send_ttl_seconds: Option<i64>,
}

fn too_long(what: &str, limit: usize) -> Refused {
    refuse_template(2_388_040, "Character Limit Exceeded", format!("{what} has more than {limit} characters."))
}

fn no_example(what: &str) -> Refused {
    refuse_template(2_388_043, "Message template is missing an example", format!("{what} has no example."))
}

fn body_format(details: impl Into<String>) -> Refused {
    refuse_template(2_388_072, "Message body format is incorrect", details)
}

fn header_format(details: impl Into<String>) -> Refused {
    refuse_template(2_388_047, "Message header format is incorrect", details)
}

fn buttons_format(details: impl Into<String>) -> Refused {
    Refused { title: Some("Invalid buttons"), ..refuse(100, details) }
}

/// A name that templates may have.
pub(super) fn name(given: Option<&str>) -> Result<&str, Refused> {
    let name = given.ok_or_else(|| refuse(100, "The parameter name is required."))?;
    if name.is_empty() || !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
        let details = "The message template name can only have lowercase letters, digits and underscores.";
        return Err(refuse_template(2_388_046, "Name Format is Incorrect", details));
    }
    if name.len() > 512 {
        return Err(too_long("name", 512));
    }
    Ok(name)
}

pub(super) fn language(given: Option<&str>) -> Result<&str, Refused> {
    let language = given.ok_or_else(|| refuse(100, "The parameter language is required."))?;
    if LANGUAGES.contains(&language) {
        Ok(language)
    } else {
        Err(refuse(100, format!("Param language must be one of {LANGUAGES:?}.")))
    }
}

pub(super) fn category(given: Option<&str>) -> Result<&'static str, Refused> {
    let known = ["AUTHENTICATION", "MARKETING", "UTILITY"];
    let category = given.ok_or_else(|| refuse(100, "The parameter category is required."))?;
    known
        .into_iter()
        .find(|one| *one == category)
        .ok_or_else(|| refuse(100, format!("Param category must be one of {known:?}.")))
}

/// Whether its parameters have names.
pub(super) fn named(given: Option<&str>) -> Result<bool, Refused> {
    match given.map(str::to_ascii_lowercase).as_deref() {
        None | Some("positional") => Ok(false),
        Some("named") => Ok(true),
        Some(_) => Err(refuse(100, "Param parameter_format must be one of {NAMED, POSITIONAL}.")),
    }
}

/// How long the carrier goes on trying, in seconds, or -1 for its longest.
pub(super) fn ttl(given: Option<i64>, category: &str) -> Result<(), Refused> {
    let (longest, range) = match category {
        "AUTHENTICATION" => (true, 30..=900),
        "UTILITY" => (true, 30..=43_200),
        _ => (false, 43_200..=2_592_000),
    };
    match given {
        None => Ok(()),
        Some(-1) if longest => Ok(()),
        Some(seconds) if range.contains(&seconds) => Ok(()),
        Some(_) => Err(refuse(
            100,
            format!("Param message_send_ttl_seconds must be within {range:?} for a template of category {category}."),
        )),
    }
}

/// Checks components; `handle` says the MIME type of an uploaded sample.
pub(super) fn components(
    given: &[Value],
    category: &str,
    named: bool,
    handle: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Refused> {
    let mut seen: Vec<String> = Vec::new();
    for one in given {
        let kind = word(one, "type").unwrap_or_default().to_ascii_uppercase();
        if !["HEADER", "BODY", "FOOTER", "BUTTONS"].contains(&kind.as_str()) {
            return Err(refuse(100, "Param components[..]['type'] must be one of {BODY, BUTTONS, FOOTER, HEADER}."));
        }
        if seen.contains(&kind) {
            return Err(refuse(100, format!("A message template can have one {kind} only.")));
        }
        seen.push(kind);
    }
    if !seen.iter().any(|kind| kind == "BODY") {
        return Err(refuse(100, "A message template must have a BODY."));
    }
    let part = |kind: &str| component(given, kind);
    if category == "AUTHENTICATION" {
        return authentication(part("HEADER"), part("BODY"), part("FOOTER"), part("BUTTONS"));
    }
    if let Some(header) = part("HEADER") {
        check_header(header, named, handle)?;
    }
    if let Some(body) = part("BODY") {
        check_body(body, named)?;
    }
    if let Some(footer) = part("FOOTER") {
        check_footer(footer)?;
    }
    part("BUTTONS").map_or(Ok(()), check_buttons)
}

/// Its words are the carrier's; only switches are given, and one button with the code.
fn authentication(
    header: Option<&Value>,
    body: Option<&Value>,
    footer: Option<&Value>,
    buttons: Option<&Value>,
) -> Result<(), Refused> {
    if header.is_some() {
        return Err(refuse(100, "A template of category AUTHENTICATION cannot have a HEADER."));
    }
    if body.is_some_and(|body| body.get("text").is_some()) {
        return Err(refuse(100, "The BODY of a template of category AUTHENTICATION cannot have a text."));
    }
    if let Some(footer) = footer {
        let minutes = footer.get("code_expiration_minutes").and_then(Value::as_i64);
        if footer.get("text").is_some() || !minutes.is_some_and(|minutes| (1..=90).contains(&minutes)) {
            return Err(refuse(100, "Param code_expiration_minutes must be within 1 to 90, and no text beside it."));
        }
    }
    let buttons = buttons.and_then(|buttons| buttons.get("buttons")?.as_array());
    let [button] = buttons.map_or(&[][..], Vec::as_slice) else {
        return Err(buttons_format("A template of category AUTHENTICATION has exactly one button, of type OTP."));
    };
    if !word(button, "type").is_some_and(|kind| kind.eq_ignore_ascii_case("OTP")) {
        return Err(buttons_format("A template of category AUTHENTICATION has exactly one button, of type OTP."));
    }
    label(button, false)?;
    let apps = button.get("supported_apps").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let good = |app: &Value| {
        word(app, "package_name").is_some_and(|name| name.contains('.'))
            && word(app, "signature_hash").is_some_and(|hash| hash.len() == 11)
    };
    match word(button, "otp_type").map(str::to_ascii_uppercase).as_deref() {
        Some("COPY_CODE") => Ok(()),
        Some(kind @ ("ONE_TAP" | "ZERO_TAP")) => {
            if !(1..=5).contains(&apps.len()) || !apps.iter().all(good) {
                return Err(buttons_format(
                    "supported_apps needs 1 to 5 packages, each with its hash of 11 characters.",
                ));
            }
            let accepted = button.get("zero_tap_terms_accepted").and_then(Value::as_bool).unwrap_or(false);
            if kind == "ZERO_TAP" && !accepted {
                return Err(buttons_format("zero_tap_terms_accepted must be true for a button of otp_type ZERO_TAP."));
            }
            Ok(())
        }
        _ => Err(buttons_format("Param otp_type must be one of {COPY_CODE, ONE_TAP, ZERO_TAP}.")),
    }
}

fn check_header(header: &Value, named: bool, handle: &dyn Fn(&str) -> Option<String>) -> Result<(), Refused> {
    let example = header.get("example");
    let begins = match word(header, "format") {
        Some("TEXT") => return check_header_text(header, named),
        Some("LOCATION") => return Ok(()),
        Some("IMAGE") => "image/",
        Some("VIDEO") => "video/",
        Some("DOCUMENT") => "application/pdf",
        _ => return Err(header_format("Param format must be one of {DOCUMENT, IMAGE, LOCATION, TEXT, VIDEO}.")),
    };
    let given = example.and_then(|example| example.get("header_handle")?.as_array()?.first()?.as_str());
    let given = given.ok_or_else(|| no_example("The header"))?;
    match handle(given) {
        Some(mime) if mime.starts_with(begins) => Ok(()),
        Some(mime) => Err(header_format(format!("The sample is of type {mime}, which does not fit the format."))),
        None => Err(refuse(100, "Param header_handle is not a handle of an upload of this app.")),
    }
}

fn check_header_text(header: &Value, named: bool) -> Result<(), Refused> {
    let text = word(header, "text").unwrap_or_default();
    if text.trim().is_empty() {
        return Err(header_format("A header of format TEXT needs a text."));
    }
    if text.chars().count() > 60 {
        return Err(too_long("The header", 60));
    }
    if text.contains(['\n', '*', '~', '`']) || text.chars().any(is_emoji) {
        return Err(header_format("The header can't have new lines, formatting characters, emojis or asterisks."));
    }
    let names = variables(text);
    if names.len() > 1 {
        return Err(header_format("The header can have one variable only."));
    }
    names_fit(&names, named)?;
    let Some(variable) = names.first() else { return Ok(()) };
    let example = header.get("example");
    let given = if named {
        let list = example.and_then(|example| example.get("header_text_named_params")?.as_array());
        list.is_some_and(|list| list.iter().any(|one| word(one, "param_name") == Some(variable)))
    } else {
        example.and_then(|example| example.get("header_text")?.as_array()).is_some_and(|list| list.len() == 1)
    };
    if given { Ok(()) } else { Err(no_example("The header's variable")) }
}

fn check_body(body: &Value, named: bool) -> Result<(), Refused> {
    let text = word(body, "text").map(str::trim).unwrap_or_default();
    if text.is_empty() {
        return Err(body_format("The body needs a text."));
    }
    if text.chars().count() > 1024 {
        return Err(too_long("The body", 1024));
    }
    if text.contains("\n\n\n") || text.contains('\t') || text.contains("     ") {
        return Err(body_format("The body can't have more than two new lines or four spaces in a row, or tabs."));
    }
    let names = variables(text);
    names_fit(&names, named)?;
    if text.starts_with("{{") || text.ends_with("}}") {
        return Err(refuse_template(
            2_388_299,
            "Variables can't be at the start or end of the template",
            "Variables can't be at the start or end of the template.",
        ));
    }
    if text.replace(' ', "").contains("}}{{") {
        return Err(body_format("Variables may not stand next to each other."));
    }
    let words = text.split_whitespace().filter(|word| !word.contains("{{")).count();
    // Words enough around each: more than twice as many as variables.
    if !names.is_empty() && words <= 2 * names.len() {
        return Err(refuse_template(
            2_388_293,
            "Parameters words ratio exceeds limit",
            "This template has too many variables for its length. Reduce the number of variables or increase the \
             message length.",
        ));
    }
    check_examples(body.get("example"), &names, named)
}

fn check_examples(example: Option<&Value>, names: &[String], named: bool) -> Result<(), Refused> {
    if names.is_empty() {
        return Ok(());
    }
    let given = if named {
        let list = example.and_then(|example| example.get("body_text_named_params")?.as_array());
        let told = |name: &String| {
            list.is_some_and(|list| {
                list.iter().any(|one| {
                    word(one, "param_name") == Some(name) && word(one, "example").is_some_and(|text| !text.is_empty())
                })
            })
        };
        names.iter().all(told)
    } else {
        let list = example.and_then(|example| example.get("body_text")?.as_array()?.first()?.as_array());
        list.is_some_and(|list| list.len() == names.len())
    };
    if given { Ok(()) } else { Err(no_example("A variable of the body")) }
}

/// Numbers in sequence, or names: as the template says that they are.
fn names_fit(names: &[String], named: bool) -> Result<(), Refused> {
    for (index, name) in names.iter().enumerate() {
        let fits = if named {
            name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
                && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        } else {
            *name == (index + 1).to_string()
        };
        if !fits {
            return Err(body_format(if named {
                format!("The variable '{name}' is no name: parameter_format is NAMED.")
            } else {
                format!(
                    "The variable '{name}' is not number {} in the sequence: parameter_format is POSITIONAL.",
                    index + 1
                )
            }));
        }
    }
    Ok(())
}

fn check_footer(footer: &Value) -> Result<(), Refused> {
    let text = word(footer, "text").unwrap_or_default();
    let format = |details: &str| refuse_template(2_388_073, "Message footer format is incorrect", details);
    if text.trim().is_empty() {
        return Err(format("The footer needs a text."));
    }
    if text.chars().count() > 60 {
        return Err(too_long("The footer", 60));
    }
    if text.contains(['\n', '\t']) || text.contains("{{") {
        return Err(format("The footer can't have variables or new lines."));
    }
    Ok(())
}

fn label(button: &Value, needed: bool) -> Result<(), Refused> {
    match word(button, "text") {
        None | Some("") if needed => Err(buttons_format("Every button needs a text.")),
        Some(text) if text.chars().count() > 25 => Err(too_long("A button's text", 25)),
        Some(text) if text.contains(['\n', '*']) || text.contains("{{") || text.chars().any(is_emoji) => {
            Err(buttons_format("Buttons can't have any variables, new lines, emojis or formatting characters."))
        }
        _ => Ok(()),
    }
}

fn check_buttons(buttons: &Value) -> Result<(), Refused> {
    let buttons = buttons.get("buttons").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if buttons.is_empty() || buttons.len() > 10 {
        return Err(buttons_format("A message template can have 1 to 10 buttons."));
    }
    let kinds: Vec<String> =
        buttons.iter().map(|button| word(button, "type").unwrap_or_default().to_ascii_uppercase()).collect();
    for (kind, most) in [("URL", 2), ("PHONE_NUMBER", 1), ("COPY_CODE", 1)] {
        if kinds.iter().filter(|given| *given == kind).count() > most {
            return Err(buttons_format(format!("A message template can have {most} buttons of type {kind}.")));
        }
    }
    // Quick replies stand together, before all others or behind them.
    let changes = kinds.windows(2).filter(|pair| (pair[0] == "QUICK_REPLY") != (pair[1] == "QUICK_REPLY")).count();
    if changes > 1 {
        return Err(buttons_format("Quick replies cannot be mixed with other buttons: group them."));
    }
    for (button, kind) in buttons.iter().zip(&kinds) {
        label(button, kind != "COPY_CODE")?;
        match kind.as_str() {
            "QUICK_REPLY" | "FLOW" | "CATALOG" | "MPM" | "VOICE_CALL" => {}
            "URL" => check_url(button)?,
            "PHONE_NUMBER" => {
                let number = word(button, "phone_number").unwrap_or_default();
                if number.is_empty()
                    || number.len() > 20
                    || !number.trim_start_matches('+').bytes().all(|b| b.is_ascii_digit())
                {
                    return Err(buttons_format("phone_number must be a phone number of at most 20 characters."));
                }
            }
            "COPY_CODE" => {
                let example = button.get("example");
                let code = example.and_then(|code| code.as_str().or_else(|| code.as_array()?.first()?.as_str()));
                let code = code.ok_or_else(|| no_example("The code to copy"))?;
                if code.is_empty() || code.chars().count() > 15 {
                    return Err(too_long("The code to copy", 15));
                }
            }
            "OTP" => return Err(buttons_format("A button of type OTP is for templates of category AUTHENTICATION.")),
            other => return Err(buttons_format(format!("A button cannot be of type '{other}'."))),
        }
    }
    Ok(())
}

fn check_url(button: &Value) -> Result<(), Refused> {
    let url = word(button, "url").unwrap_or_default();
    if url.chars().count() > 2000 {
        return Err(too_long("A button's URL", 2000));
    }
    let plain = url.strip_suffix("{{1}}");
    let host = plain.unwrap_or(url).strip_prefix("https://").or_else(|| plain.unwrap_or(url).strip_prefix("http://"));
    if !host.is_some_and(|host| host.starts_with(|first: char| first.is_ascii_alphanumeric())) {
        return Err(buttons_format("A button's URL must be a web address."));
    }
    if plain.unwrap_or(url).contains("{{") {
        return Err(buttons_format("A button's URL can have one variable only, {{1}}, at its end."));
    }
    let example = button.get("example").and_then(Value::as_array);
    if plain.is_some() && !example.is_some_and(|list| list.len() == 1 && list[0].is_string()) {
        return Err(no_example("The variable of a button's URL"));
    }
    Ok(())
}

fn is_emoji(character: char) -> bool {
    matches!(u32::from(character), 0x1_F000..=0x1_FAFF | 0x2600..=0x27BF | 0x2B50 | 0x2B55)
}

/// Whether words sell something: then what was submitted as a message about a purchase is one for marketing
/// (Cloud API, template categorisation).
pub(super) fn sells(components: &[Value]) -> bool {
    const WORDS: [&str; 9] =
        ["discount", "% off", "special offer", "limited offer", "sale ends", "coupon", "shop now", "छूट", "ऑफ़र"];
    components.iter().filter_map(|one| word(one, "text")).any(|text| {
        let text = text.to_lowercase();
        WORDS.iter().any(|word| text.contains(word))
    })
}
