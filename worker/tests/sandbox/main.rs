//! The stand-in itself, driven over HTTP as a client of the carrier would: every refusal, every limit, every webhook.

mod faults;
mod limits;
mod messages;
mod numbers;
mod page;
mod templates;
mod webhooks;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use muneem::{
    outbound::http::{Timeouts, client},
    sandbox::{Options, Pace, Sandbox},
};
use muneem_jobs::messaging;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

const ASHA: &str = "+919812345678";
const TOKEN: &str = "sandbox-access-token";
/// Longest wait for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A webhook as it came.
#[derive(Clone)]
struct Hook {
    body: Bytes,
    signature: Option<String>,
}

impl Hook {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// Takes webhooks down.
#[derive(Default)]
struct Ears {
    heard: Mutex<Vec<Hook>>,
    ring: Notify,
    /// Answers so many with 500.
    deaf: Mutex<u32>,
}

impl Ears {
    fn heard(&self) -> Vec<Hook> {
        self.heard.lock().expect("not poisoned").clone()
    }

    /// Every change of every webhook: account, field, value.
    fn changes(&self) -> Vec<(String, String, Value)> {
        let mut changes = Vec::new();
        for hook in self.heard() {
            for entry in hook.json()["entry"].as_array().expect("entries") {
                for change in entry["changes"].as_array().expect("changes") {
                    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    changes.push((word(&entry["id"]), word(&change["field"]), change["value"].clone()));
                }
            }
        }
        changes
    }

    fn of(&self, field: &str) -> Vec<Value> {
        self.changes().into_iter().filter(|(_, is, _)| is == field).map(|(.., value)| value).collect()
    }

    /// All statuses told, as `status` and the whole.
    fn statuses(&self) -> Vec<(String, Value)> {
        let all =
            self.of("messages").into_iter().flat_map(|value| value["statuses"].as_array().cloned().unwrap_or_default());
        all.map(|one| (one["status"].as_str().unwrap_or_default().to_owned(), one)).collect()
    }

    fn of_status(&self, status: &str) -> Vec<Value> {
        self.statuses().into_iter().filter(|(is, _)| is == status).map(|(_, one)| one).collect()
    }

    /// Messages that people wrote.
    fn inbound(&self) -> usize {
        self.of("messages").iter().map(|value| value["messages"].as_array().map_or(0, Vec::len)).sum()
    }

    /// Waits until what was heard is as wished.
    async fn until<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let wait = async {
            loop {
                let ring = self.ring.notified();
                if let Some(found) = look(self) {
                    return found;
                }
                ring.await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(found) => found,
            Err(_) => panic!("{what} was not heard: {:#?}", self.changes()),
        }
    }
}

async fn handshake(Query(asked): Query<std::collections::HashMap<String, String>>) -> Response {
    let word = |name: &str| asked.get(name).cloned().unwrap_or_default();
    if word("hub.mode") == "subscribe" && word("hub.verify_token") == "sandbox-verify-token" {
        word("hub.challenge").into_response()
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}

async fn hear(State(ears): State<Arc<Ears>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    {
        let mut deaf = ears.deaf.lock().expect("not poisoned");
        if *deaf > 0 {
            *deaf -= 1;
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
    }
    let signature = headers.get("x-hub-signature-256").and_then(|value| value.to_str().ok()).map(str::to_owned);
    ears.heard.lock().expect("not poisoned").push(Hook { body, signature });
    ears.ring.notify_waiters();
    StatusCode::OK
}

/// Starts a receiver of webhooks.
async fn ears(end: &CancellationToken) -> (Arc<Ears>, String) {
    let ears = Arc::new(Ears::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = listener.local_addr().expect("bound");
    let router = Router::new()
        .route("/hook", get(handshake).post(hear))
        .layer(axum::extract::DefaultBodyLimit::max(4 << 20))
        .with_state(Arc::clone(&ears));
    let until = end.clone();
    tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(until.cancelled_owned()).await });
    (ears, format!("http://{at}/hook"))
}

/// A stand-in, and somebody who hears its webhooks.
struct Stand {
    at: SocketAddr,
    ears: Arc<Ears>,
    hook: String,
    http: reqwest::Client,
    end: CancellationToken,
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Stand {
    async fn open() -> Self {
        Self::with(|_| {}).await
    }

    /// With options of its own.
    async fn with(set: impl FnOnce(&mut Options)) -> Self {
        let end = CancellationToken::new();
        let (ears, hook) = ears(&end).await;
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut options = Options { pace: Pace::INSTANT, review: None, mail: None, ..Options::local(loopback, 7) };
        options.callback_url = Some(hook.clone());
        set(&mut options);
        let sandbox = Sandbox::bind(options).await.expect("a free port");
        let at = sandbox.address();
        tokio::spawn(sandbox.run(end.clone()));
        Self { at, ears, hook, http: client(Timeouts::DEFAULT).expect("a client"), end }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v25.0/{path}", self.at)
    }

    async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = request.send().await.expect("the stand-in answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        Self::answer(self.http.get(self.url(path)).bearer_auth(TOKEN)).await
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        Self::answer(self.http.post(self.url(path)).bearer_auth(TOKEN).json(body)).await
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        Self::answer(self.http.delete(self.url(path)).bearer_auth(TOKEN)).await
    }

    /// Posts to the stand-in's own controls.
    async fn control(&self, what: &str, body: &Value) -> u16 {
        let answer = self.http.post(format!("http://{}/sandbox/{what}", self.at)).json(body).send().await;
        answer.expect("the stand-in answers").status().as_u16()
    }

    async fn advance(&self, secs: i64) {
        assert_eq!(self.control("clock", &json!({ "advance_secs": secs })).await, 200);
    }

    async fn oracle(&self) -> Value {
        let answer = self.http.get(format!("http://{}/sandbox/oracle", self.at)).send().await;
        answer.expect("the stand-in answers").json().await.expect("JSON")
    }

    /// Somebody writes to the first number; says the id.
    async fn hear_from(&self, phone: &str, text: &str) -> String {
        let writing = json!({ "from": phone, "text": text });
        let request = self.http.post(format!("http://{}/sandbox/inbound", self.at)).json(&writing);
        let (status, answer) = Self::answer(request).await;
        assert_eq!(status, 200, "{answer}");
        answer["wamid"].as_str().expect("an id").to_owned()
    }

    async fn send(&self, body: &Value) -> (u16, Value) {
        self.post(&format!("{}/messages", Options::NUMBER), body).await
    }
}

/// The code of a refusal, and its subcode.
fn code(answer: &(u16, Value)) -> (i64, Option<i64>) {
    let error = &answer.1["error"];
    (error["code"].as_i64().unwrap_or(0), error["error_subcode"].as_i64())
}

/// A template message without a file at its head.
fn message(to: &str, name: &str, components: &Value) -> Value {
    json!({ "messaging_product": "whatsapp", "to": to, "type": "template",
        "template": { "name": name, "language": { "code": "en" }, "components": components } })
}

/// One of ours that needs no file.
fn link(to: &str) -> Value {
    let values = json!([
        { "type": "text", "parameter_name": "business_name", "text": "Sharma Mobiles" },
        { "type": "text", "parameter_name": "url", "text": "https://muneem.example.in/r/1" },
        { "type": "text", "parameter_name": "until", "text": "26-11-2026 18:30 IST" },
    ]);
    message(to, "approval_link_v1", &json!([{ "type": "body", "parameters": values }]))
}
