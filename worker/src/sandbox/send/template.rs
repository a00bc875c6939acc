//! A template as it is sent: judged against the one that the account has.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    super::{
        refused::{Refused, refuse},
        templates::{Button, Head, HeadFile, Shape, fill},
        world::World,
    },
    part::{self, FileRef, Filled, Tap},
};

/// Longest text after filling: of a body, and of a header.
const LONGEST: [usize; 2] = [1024, 60];
/// Longest code, for one time or to copy.
const LONGEST_CODE: usize = 15;

fn missing(name: &str) -> Refused {
    refuse(131_008, format!("The parameter template['{name}'] is required."))
}

/// Finds the template and fills it.
pub(super) fn judge(world: &World, number: usize, posted: &Value, now: DateTime<Utc>) -> Result<Filled, Refused> {
    let name = posted["name"].as_str().filter(|name| !name.is_empty()).ok_or_else(|| missing("name"))?;
    let language = posted["language"]["code"].as_str().ok_or_else(|| missing("language"))?;
    let waba = &world.numbers[number].number.waba_id;
    let unknown = || refuse(132_001, format!("template name ({name}) does not exist in {language}"));
    let template = world.templates.find(waba, name, language).ok_or_else(unknown)?;
    match template.status.as_str() {
        "APPROVED" => {}
        "PAUSED" => return Err(refuse(132_015, "The template is paused due to low quality")),
        "DISABLED" => return Err(refuse(132_016, "The template is disabled for good due to low quality")),
        _ => return Err(unknown()),
    }
    let components = match &posted["components"] {
        Value::Null => &[][..],
        Value::Array(components) => components.as_slice(),
        _ => return Err(refuse(100, "Param template['components'] must be an array.")),
    };
    let shape = &template.shape;
    let (head, file) = head(world, number, shape, components, now)?;
    let values = if shape.has_code() { code(shape, components)? } else { body(shape, template.named, components)? };
    let text = fill(&shape.body, &values);
    if text.chars().count() > LONGEST[0] {
        return Err(refuse(132_005, "Translated text is too long"));
    }
    let taps = buttons(shape, components, &values)?;
    Ok(Filled {
        template: Some(template.id),
        category: Some(template.category.clone()),
        head,
        file,
        text,
        footer: shape.footer.clone(),
        taps,
        ..Filled::default()
    })
}

fn of_kind<'a>(components: &'a [Value], kind: &str) -> Option<&'a Value> {
    components.iter().find(|one| one["type"].as_str().is_some_and(|given| given.eq_ignore_ascii_case(kind)))
}

fn parameters(component: Option<&Value>) -> &[Value] {
    component.and_then(|component| component["parameters"].as_array()).map_or(&[], Vec::as_slice)
}

fn count(what: &str, given: usize, expected: usize) -> Refused {
    let details = format!(
        "{what}: number of localizable_params ({given}) does not match the expected number of params ({expected})"
    );
    refuse(132_000, details)
}

/// A text without what the carrier takes out of no parameter.
fn plain<'a>(what: &str, text: &'a str) -> Result<&'a str, Refused> {
    if text.trim().is_empty() || text.contains(['\n', '\t']) || text.contains("     ") {
        let details = format!("{what}: Param text cannot be empty or have new-line/tab/more than 4 spaces");
        return Err(refuse(132_018, details));
    }
    Ok(text)
}

fn text_of<'a>(what: &str, parameter: &'a Value) -> Result<&'a str, Refused> {
    let text = match parameter["type"].as_str() {
        Some("text") => parameter["text"].as_str(),
        Some("currency") => parameter["currency"]["fallback_value"].as_str(),
        Some("date_time") => parameter["date_time"]["fallback_value"].as_str(),
        _ => None,
    };
    plain(what, text.ok_or_else(|| refuse(132_012, format!("{what}: Parameter format does not match")))?)
}

fn head(
    world: &World,
    number: usize,
    shape: &Shape,
    components: &[Value],
    now: DateTime<Utc>,
) -> Result<(Option<String>, Option<FileRef>), Refused> {
    let given = parameters(of_kind(components, "header"));
    match (&shape.head, given) {
        (Head::None, []) => Ok((None, None)),
        (Head::None, given) => Err(count("header", given.len(), 0)),
        (Head::Text { text, variable: None }, []) => Ok((Some(text.clone()), None)),
        (Head::Text { text, variable: Some(variable) }, [parameter]) => {
            let value = text_of("header", parameter)?.to_owned();
            let filled = fill(text, &[(variable.clone(), value)]);
            if filled.chars().count() > LONGEST[1] {
                return Err(refuse(132_005, "header: Translated text is too long"));
            }
            Ok((Some(filled), None))
        }
        (Head::Text { variable, .. }, given) => Err(count("header", given.len(), usize::from(variable.is_some()))),
        (Head::File(kind), [parameter]) => Ok((None, Some(head_file(world, number, *kind, parameter, now)?))),
        (Head::File(kind), []) => {
            let details = format!("header: Format mismatch, expected {}, received UNKNOWN", kind.word());
            Err(refuse(132_012, details))
        }
        (Head::Location, [parameter]) if parameter["type"] == "location" => {
            let place = &parameter["location"];
            let number = |key: &str| place[key].as_f64().or_else(|| place[key].as_str()?.parse().ok());
            if number("latitude").is_none() || number("longitude").is_none() {
                return Err(refuse(131_008, "The parameters latitude and longitude are required."));
            }
            let named = place["name"].as_str().or_else(|| place["address"].as_str());
            Ok((Some(format!("📍 {}", named.unwrap_or("A place"))), None))
        }
        _ => Err(refuse(132_012, "header: Format mismatch")),
    }
}

fn head_file(
    world: &World,
    number: usize,
    kind: HeadFile,
    parameter: &Value,
    now: DateTime<Utc>,
) -> Result<FileRef, Refused> {
    let word = kind.word().to_lowercase();
    if parameter["type"].as_str() != Some(word.as_str()) {
        let given = parameter["type"].as_str().unwrap_or("unknown").to_uppercase();
        return Err(refuse(132_012, format!("header: Format mismatch, expected {}, received {given}", kind.word())));
    }
    part::file(world, number, &word, &parameter[&word], now)
}

fn body(shape: &Shape, named: bool, components: &[Value]) -> Result<Vec<(String, String)>, Refused> {
    let given = parameters(of_kind(components, "body"));
    if given.len() != shape.variables.len() {
        return Err(count("body", given.len(), shape.variables.len()));
    }
    let mut values = Vec::with_capacity(given.len());
    for (index, parameter) in given.iter().enumerate() {
        let name = if named {
            let name = parameter["parameter_name"].as_str().filter(|name| !name.is_empty());
            name.ok_or_else(|| refuse(100, "Parameter name is missing or empty"))?
        } else {
            &shape.variables[index]
        };
        let known = shape.variables.iter().any(|known| known == name);
        if !known || values.iter().any(|(given, _)| given == name) {
            return Err(refuse(132_012, "body: Parameter name is unknown or given twice"));
        }
        values.push((name.to_owned(), text_of("body", parameter)?.to_owned()));
    }
    Ok(values)
}

/// An authentication template has one unnamed parameter, and a button that copies the same code.
fn code(shape: &Shape, components: &[Value]) -> Result<Vec<(String, String)>, Refused> {
    let only = |component: Option<&Value>| match parameters(component) {
        [parameter] if parameter["type"] == "text" && parameter["parameter_name"].is_null() => {
            parameter["text"].as_str().map(str::to_owned)
        }
        _ => None,
    };
    let code = only(of_kind(components, "body"));
    let code = code.ok_or_else(|| refuse(132_000, "body: one unnamed parameter is expected"))?;
    let button = of_kind(components, "button").filter(|button| button["sub_type"] == "url");
    if only(button).as_ref() != Some(&code) {
        return Err(refuse(131_008, "Required parameter is missing: buttons: Button at index 0 of type Url"));
    }
    if code.chars().count() > LONGEST_CODE {
        return Err(refuse(132_005, "The code is longer than 15 characters"));
    }
    plain("body", &code)?;
    let name = shape.variables.first().cloned().unwrap_or_default();
    Ok(vec![(name, code)])
}

/// The component of a button, by its place in the template.
fn button_at(components: &[Value], index: usize) -> Option<&Value> {
    components.iter().find(|one| {
        let place = one["index"].as_u64().or_else(|| one["index"].as_str()?.parse().ok());
        one["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("button")) && place == Some(index as u64)
    })
}

fn buttons(shape: &Shape, components: &[Value], values: &[(String, String)]) -> Result<Vec<Tap>, Refused> {
    let given =
        components.iter().filter(|one| one["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("button")));
    if given.count() > shape.buttons.len() {
        return Err(refuse(132_012, "buttons: there are more parameters than the template has buttons"));
    }
    let needs = |index: usize, kind: &str| {
        let details = format!(
            "Required parameter is missing: buttons: Button at index {index} of type {kind} requires a parameter"
        );
        refuse(131_008, details)
    };
    let mut taps = Vec::with_capacity(shape.buttons.len());
    for (index, button) in shape.buttons.iter().enumerate() {
        let posted = button_at(components, index);
        let sub_type = posted.and_then(|one| one["sub_type"].as_str()).unwrap_or_default().to_ascii_lowercase();
        let first = parameters(posted).first();
        let wrong = |expected: &str| refuse(132_012, format!("buttons: Button at index {index} is of type {expected}"));
        taps.push(match button {
            Button::QuickReply { text } => {
                if posted.is_some() && sub_type != "quick_reply" {
                    return Err(wrong("QuickReply"));
                }
                let payload = first.and_then(|one| one["payload"].as_str()).unwrap_or(text);
                if payload.chars().count() > 256 {
                    return Err(refuse(131_009, "The payload of a button is longer than 256 characters"));
                }
                Tap::Reply { text: text.clone(), payload: payload.to_owned() }
            }
            Button::Url { text, url, variable } => {
                if posted.is_some() && sub_type != "url" {
                    return Err(wrong("Url"));
                }
                match (variable, first) {
                    (true, None) => return Err(needs(index, "Url")),
                    (false, Some(_)) => {
                        let details =
                            format!("buttons: Button at index {index} of type Url does not require a parameter");
                        return Err(refuse(132_018, details));
                    }
                    _ => {}
                }
                let suffix = first.map(|one| text_of("buttons", one)).transpose()?.unwrap_or_default();
                if suffix.chars().count() > 2000 {
                    return Err(refuse(132_005, "buttons: the URL is too long"));
                }
                Tap::Url { text: text.clone(), url: url.replace("{{1}}", suffix) }
            }
            Button::CopyCode => {
                let code = first.and_then(|one| one["coupon_code"].as_str()).ok_or_else(|| needs(index, "CopyCode"))?;
                if code.is_empty()
                    || code.chars().count() > LONGEST_CODE
                    || !code.bytes().all(|b| b.is_ascii_alphanumeric())
                {
                    return Err(refuse(131_009, "coupon_code must be 1 to 15 letters and digits"));
                }
                Tap::Copy { text: button.text().to_owned(), code: code.to_owned() }
            }
            Button::Otp { text } => {
                let code = values.first().map(|(_, code)| code.clone()).unwrap_or_default();
                Tap::Copy { text: text.clone(), code }
            }
            Button::Phone { text, number } => Tap::Call { text: text.clone(), number: number.clone() },
            Button::Other { kind, text } => Tap::Other { kind: kind.clone(), text: text.clone() },
        });
    }
    Ok(taps)
}
