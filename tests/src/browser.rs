//! A real browser: headless Chromium over the DevTools protocol, spoken through a pipe.
//!
//! Messages are JSON with a NUL behind each (`--remote-debugging-pipe`), so nothing but a process is needed. Whatever
//! the page's policy refuses, and whatever its scripts throw, is kept in [`Chromium::complaints`].

use std::{path::Path, process::Stdio, time::Instant};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::PATIENCE;

/// One window of the browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tab(String);

/// A running browser; it ends when dropped.
pub struct Chromium {
    _child: Child,
    ask: ChildStdin,
    told: BufReader<ChildStdout>,
    asked: u64,
    /// Violations of a policy, and exceptions of scripts, in any window.
    pub complaints: Vec<String>,
}

impl Chromium {
    /// Starts it with an empty profile in `home`. `None`: there is no Chromium on this machine, which is said.
    ///
    /// # Panics
    /// When it is missing and every test must run (`MUNEEM_TESTS_COMPLETE=1`), or does not start.
    #[expect(clippy::print_stdout, reason = "a test that is skipped says so where its result is read")]
    pub async fn start(home: &Path) -> Option<Self> {
        let found = std::process::Command::new("chromium").arg("--version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            assert!(
                std::env::var_os("MUNEEM_TESTS_COMPLETE").is_none_or(|value| value != "1"),
                "chromium is missing: apt-get install chromium"
            );
            println!("SKIPPED: needs chromium (apt-get install chromium)");
            return None;
        }
        // The browser reads from descriptor 3 and writes to 4.
        let line = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                    --disable-component-update --disable-background-networking --remote-debugging-pipe \
                    --user-data-dir=\"$0\" about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut child = Command::new("sh")
            .args(["-c", line])
            .arg(home.join("chromium"))
            .env("HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a shell starts");
        let ask = child.stdin.take().expect("it is piped");
        let told = BufReader::new(child.stdout.take().expect("it is piped"));
        Some(Self { _child: child, ask, told, asked: 0, complaints: Vec::new() })
    }

    /// A window that shares cookies with no other.
    ///
    /// # Panics
    /// When the browser does not answer.
    pub async fn open(&mut self) -> Tab {
        let context = self.call(None, "Target.createBrowserContext", json!({})).await["browserContextId"].clone();
        let target = json!({ "url": "about:blank", "browserContextId": context });
        let target = self.call(None, "Target.createTarget", target).await["targetId"].clone();
        let attached = json!({ "targetId": target, "flatten": true });
        let session = self.call(None, "Target.attachToTarget", attached).await;
        let tab = Tab(session["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            self.call(Some(&tab), domain, json!({})).await;
        }
        tab
    }

    /// Asks the browser for something, and waits for its answer.
    ///
    /// # Panics
    /// When it refuses or says nothing.
    pub async fn call(&mut self, tab: Option<&Tab>, method: &str, params: Value) -> Value {
        let answer = self.ask(tab, method, params).await;
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    async fn ask(&mut self, tab: Option<&Tab>, method: &str, params: Value) -> Result<Value, Value> {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": params });
        if let Some(Tab(session)) = tab {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.ask.write_all(&bytes).await.expect("the browser listens");
        loop {
            let mut bytes = Vec::new();
            let read = tokio::time::timeout(PATIENCE, self.told.read_until(0, &mut bytes));
            let length = read.await.unwrap_or_else(|_| panic!("{method}: no answer")).expect("it reads");
            assert!(length > 0, "{method}: the browser has ended");
            bytes.pop();
            let told: Value = serde_json::from_slice(&bytes).expect("JSON");
            if told["id"] == self.asked {
                return if told["error"].is_null() { Ok(told["result"].clone()) } else { Err(told["error"].clone()) };
            }
            self.hear(&told);
        }
    }

    fn hear(&mut self, event: &Value) {
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(event["params"].to_string()),
            Some("Log.entryAdded") => {
                let entry = &event["params"]["entry"];
                let text = entry["text"].as_str().unwrap_or_default();
                if entry["source"] == "security" || text.contains("Content Security Policy") {
                    self.complaints.push(text.to_owned());
                }
            }
            _ => {}
        }
    }

    /// Goes to an address and waits until its page is there.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn go(&mut self, tab: &Tab, url: &str) {
        // Whatever stood there is marked, so that it is not taken for what comes.
        let _ = self.try_eval(tab, "document.documentElement.dataset.left = '1'").await;
        self.call(Some(tab), "Page.navigate", json!({ "url": url })).await;
        self.wait(tab, "!document.documentElement.dataset.left && document.readyState === 'complete'").await;
    }

    /// What an expression in the page comes to.
    ///
    /// # Panics
    /// When it throws.
    pub async fn eval(&mut self, tab: &Tab, expression: &str) -> Value {
        self.try_eval(tab, expression).await.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    async fn try_eval(&mut self, tab: &Tab, expression: &str) -> Result<Value, Value> {
        let params = json!({ "expression": expression, "returnByValue": true });
        let answer = self.ask(Some(tab), "Runtime.evaluate", params).await?;
        if answer["exceptionDetails"].is_null() {
            Ok(answer["result"]["value"].clone())
        } else {
            Err(answer["exceptionDetails"].clone())
        }
    }

    /// Waits until an expression holds; a page on its way out answers nothing and is asked again.
    ///
    /// # Panics
    /// When it does not come to hold.
    pub async fn wait(&mut self, tab: &Tab, expression: &str) {
        let begun = Instant::now();
        while self.try_eval(tab, expression).await.ok() != Some(Value::Bool(true)) {
            if begun.elapsed() > PATIENCE {
                let page = self.try_eval(tab, "location.href + '\\n' + document.body.innerText").await;
                panic!("waited in vain: {expression}\n{page:?}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Waits for the page at this path.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn at(&mut self, tab: &Tab, path: &str) {
        let path = Value::from(path);
        let there = "!document.documentElement.dataset.left && document.readyState === 'complete'";
        self.wait(tab, &format!("{there} && location.pathname === {path}")).await;
    }

    /// Types into a field, key by key as far as the page can tell.
    ///
    /// # Panics
    /// When there is no such field.
    pub async fn write(&mut self, tab: &Tab, field: &str, text: &str) {
        let field = Value::from(field);
        self.eval(tab, &format!("document.querySelector({field}).focus()")).await;
        self.call(Some(tab), "Input.insertText", json!({ "text": text })).await;
    }

    /// Presses a button, or follows a link. What comes next is a new page.
    ///
    /// # Panics
    /// When there is none.
    pub async fn press(&mut self, tab: &Tab, what: &str) {
        let what = Value::from(what);
        self.eval(tab, &format!("document.documentElement.dataset.left = '1'; document.querySelector({what}).click()"))
            .await;
    }

    /// A picture of the whole page at this width, PNG in base 64.
    ///
    /// # Panics
    /// When the browser makes none.
    pub async fn picture(&mut self, tab: &Tab, width: u32) -> String {
        let size = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call(Some(tab), "Emulation.setDeviceMetricsOverride", size).await;
        let taken = json!({ "captureBeyondViewport": true });
        let taken = self.call(Some(tab), "Page.captureScreenshot", taken).await;
        self.call(Some(tab), "Emulation.clearDeviceMetricsOverride", json!({})).await;
        taken["data"].as_str().expect("a picture").to_owned()
    }
}
