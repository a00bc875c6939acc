//! Status webhooks: signed over their exact bytes, repeated with growing gaps until they are answered with 200.

use std::{fmt::Write, sync::Arc, time::Duration};

use muneem_jobs::messaging;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use super::{
    Inner,
    world::{Message, Progress},
};

/// Bodies under way at once.
const IN_FLIGHT: usize = 64;
/// Longest gap between two tries.
const LONGEST_GAP: Duration = Duration::from_secs(60);
/// Tries; with the gaps above about a day.
const TRIES: u32 = 1500;

/// Tells of every event that arrives, until the sandbox ends.
pub(super) async fn tell(inner: Arc<Inner>, mut events: mpsc::UnboundedReceiver<Value>) {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some(first) = events.recv().await {
        let mode = inner.world().callbacks.clone();
        let mut gathered = vec![first];
        let deadline = tokio::time::Instant::now() + Duration::from_millis(mode.gather_millis);
        while gathered.len() < mode.batch.clamp(1, 1000) || mode.backwards {
            match tokio::time::timeout_at(deadline, events.recv()).await {
                Ok(Some(event)) => gathered.push(event),
                Ok(None) | Err(_) => break,
            }
        }
        if mode.backwards {
            gathered.reverse();
        }
        for batch in gathered.chunks(mode.batch.clamp(1, 1000)) {
            let body = Arc::new(escape(&json!({ "object": "whatsapp_business_account", "entry": batch }).to_string()));
            for _ in 0..mode.copies.clamp(1, 100) {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let (inner, body) = (Arc::clone(&inner), Arc::clone(&body));
                tokio::spawn(async move {
                    post(&inner, &body).await;
                    drop(place);
                });
            }
        }
    }
}

async fn post(inner: &Inner, body: &str) {
    let mut gap = Duration::from_millis(100);
    for _ in 0..TRIES {
        let (url, mode) = {
            let world = inner.world();
            (world.callback_url.clone(), world.callbacks.clone())
        };
        if let Some(url) = url.filter(|_| !mode.stopped) {
            let secret = if mode.forged { None } else { inner.options.credentials.app_secrets.first() };
            let signature = messaging::sign(secret.unwrap_or(&SecretString::from("not the secret")), body.as_bytes());
            let request = inner
                .client
                .post(url)
                .header("content-type", "application/json")
                .header("x-hub-signature-256", format!("sha256={}", hex::encode(signature)))
                .body(body.to_owned());
            let taken = request.send().await.is_ok_and(|response| response.status() == 200);
            let mut world = inner.world();
            if taken {
                world.webhooks_taken += 1;
                return;
            }
            world.webhooks_refused += 1;
        }
        tokio::select! {
            () = inner.ended.cancelled() => return,
            () = tokio::time::sleep(gap) => {}
        }
        gap = (gap * 2).min(LONGEST_GAP);
    }
}

/// As the carrier writes JSON: ASCII only, slashes escaped. Both stand only inside strings.
fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        match character {
            '/' => escaped.push_str("\\/"),
            character if character.is_ascii() => escaped.push(character),
            character => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(escaped, "\\u{unit:04x}");
                }
            }
        }
    }
    escaped
}

/// One `entry` that tells of one status.
pub(super) fn status_entry(inner: &Inner, message: &Message, progress: Progress, failure: Option<i64>) -> Value {
    let number = inner.options.numbers.iter().find(|number| number.id == message.number);
    let status = match progress {
        Progress::Accepted | Progress::Sent => "sent",
        Progress::Delivered => "delivered",
        Progress::Read => "read",
        Progress::Failed => "failed",
    };
    let mut told = json!({
        "id": message.wamid,
        "status": status,
        "timestamp": inner.now().timestamp().to_string(),
        "recipient_id": message.to,
        "recipient_type": "individual",
    });
    if let Some(reference) = &message.reference {
        told["biz_opaque_callback_data"] = json!(reference);
    }
    if matches!(progress, Progress::Sent | Progress::Delivered) {
        told["pricing"] = json!({ "billable": true, "pricing_model": "PMP", "type": "regular", "category": "utility" });
    }
    if let Some(code) = failure {
        told["errors"] = json!([{
            "code": code,
            "title": "Message undeliverable",
            "message": "Message undeliverable",
            "error_data": { "details": "The stand-in was told to fail this message" },
            "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
        }]);
    }
    json!({
        "id": number.map_or("0", |number| number.waba_id.as_str()),
        "changes": [{
            "field": "messages",
            "value": {
                "messaging_product": "whatsapp",
                "metadata": {
                    "display_phone_number": number.map(|number| number.display_phone.digits()),
                    "phone_number_id": message.number,
                },
                "contacts": [{ "profile": { "name": "ग्राहक" }, "wa_id": message.to }],
                "statuses": [told],
            },
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_escaped_like_the_carriers() {
        assert_eq!(escape(r#"{"a":"आ/😀"}"#), r#"{"a":"\u0906\/\ud83d\ude00"}"#);
    }
}
