//! Models and data sets by their names on the Hugging Face hub, fetched from a server that answers as the hub does.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

const MODEL: &str = "org/model";
const DATA: &str = "datasets/allenai/ai2_arc";

/// What the server has, what it does wrong, and what it was asked.
#[derive(Default)]
struct State {
    revision: String,
    /// By path: the repository and the file in it.
    files: BTreeMap<String, Vec<u8>>,
    /// Files that are answered with this status.
    status: BTreeMap<String, u16>,
    /// Files of which half is sent, as if it were all.
    short: Vec<String>,
    /// Files whose last bit is sent wrong.
    damaged: Vec<String>,
    /// Whether requests without a token are refused.
    gated: bool,
    /// Files of which more than the first byte was asked for.
    fetched: Vec<String>,
}

struct Hub {
    endpoint: String,
    cache: TempDir,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// A hub with the files of a directory as `org/model`, in a thread that ends with the test.
    fn new(model: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            cache: tempfile::tempdir().unwrap(),
            state: Arc::default(),
        };
        for entry in fs::read_dir(model).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            hub.add(&format!("{MODEL}/{name}"), &fs::read(entry.path()).unwrap());
        }
        hub.change(|state| state.revision = "a".repeat(40));
        let state = Arc::clone(&hub.state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &state);
            }
        });
        hub
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    fn add(&self, path: &str, bytes: &[u8]) {
        self.change(|state| {
            state.files.insert(path.to_owned(), bytes.to_owned());
        });
    }

    /// The files fetched since this was last asked.
    fn fetched(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().fetched)
    }

    fn command(&self, endpoint: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iiet"));
        command
            .args(arguments)
            .current_dir(self.cache.path())
            .env("HF_ENDPOINT", endpoint)
            .env("HF_HOME", self.cache.path())
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_HUB_OFFLINE")
            .env_remove("HF_TOKEN");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(&self.endpoint, arguments).output().unwrap()
    }

    /// Generation fails, for a reason that names this.
    fn refuses(&self, reason: &str) {
        let failed = self.run(&GENERATE);
        assert!(!failed.status.success());
        assert!(said(&failed).contains(reason), "{}", said(&failed));
    }

    fn offline(&self, arguments: &[&str]) -> Output {
        // Nobody answers there.
        let mut command = self.command("http://127.0.0.1:9", arguments);
        command.output().unwrap()
    }
}

/// Answers one request: the list of a repository's files, or a file.
fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    let headers: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .map(|line| line.to_ascii_lowercase())
        .collect();
    let header = |name: &str| headers.iter().find_map(|line| line.strip_prefix(name));
    let path = request.split(' ').nth(1).unwrap().replace("%2F", "/");
    let mut state = state.lock().unwrap();
    if state.gated && header("authorization: bearer ").is_none() {
        return send(&mut stream, 401, &[], b"");
    }
    if let Some(path) = path.strip_prefix("/api/") {
        let repository = path.split("/revision/").next().unwrap();
        let repository = repository.strip_prefix("models/").unwrap_or(repository);
        let files = state.files.keys();
        let names = files.filter_map(|file| file.strip_prefix(repository)?.strip_prefix('/'));
        let siblings: Vec<_> = names
            .map(|name| serde_json::json!({ "rfilename": name }))
            .collect();
        let status = if siblings.is_empty() { 401 } else { 200 };
        let list = serde_json::json!({ "sha": state.revision, "siblings": siblings });
        return send(&mut stream, status, &[], list.to_string().as_bytes());
    }
    // The revision is one part of the path, or refs/convert/parquet.
    let (repository, rest) = path[1..].split_once("/resolve/").unwrap();
    let rest = rest.strip_prefix("refs/convert/").unwrap_or(rest);
    let file = format!("{repository}/{}", rest.split_once('/').unwrap().1);
    if let Some(&status) = state.status.get(&file) {
        return send(&mut stream, status, &[], b"");
    }
    let mut bytes = state.files[&file].clone();
    let range = header("range: bytes=").unwrap();
    let start: usize = range.split('-').next().unwrap().parse().unwrap();
    let mut end = bytes.len();
    if range == "0-0" {
        end = 1;
    } else {
        if state.short.contains(&file) {
            end = start.midpoint(end);
        }
        state.fetched.push(file.clone());
    }
    // The hub names large files by their SHA-256, others by a shorter hash.
    let etag = match file.ends_with(".safetensors") {
        true => format!("{:x}", Sha256::digest(&bytes)),
        false => {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            format!("{:016x}", hasher.finish())
        }
    };
    if state.damaged.contains(&file) {
        *bytes.last_mut().unwrap() ^= 1;
    }
    let headers = [
        format!("etag: \"{etag}\""),
        format!("x-repo-commit: {}", state.revision),
        format!("content-range: bytes {start}-{}/{}", end - 1, bytes.len()),
    ];
    send(&mut stream, 206, &headers, &bytes[start..end]);
}

fn send(stream: &mut TcpStream, status: u16, headers: &[String], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status} \r\nconnection: close\r\n");
    for header in headers {
        head += &format!("{header}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
}

fn llama() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/llama/byte-level")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The text that a command printed, which must have succeeded.
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const GENERATE: [&str; 7] = [
    "generate",
    "--model",
    MODEL,
    "--prompt",
    "Tim",
    "--max-tokens",
    "4",
];

#[test]
fn a_model_is_fetched_once_and_then_used_without_a_network() {
    let hub = Hub::new(&llama());
    let expected = hub.offline(&[
        "generate",
        "--model",
        &llama().display().to_string(),
        "--prompt",
        "Tim",
        "--max-tokens",
        "4",
    ]);
    assert_eq!(text(&hub.run(&GENERATE)), text(&expected));
    let fetched = hub.fetched();
    assert!(
        fetched.contains(&format!("{MODEL}/model-00002-of-00002.safetensors")),
        "{fetched:?}"
    );
    assert_eq!(text(&hub.run(&GENERATE)), text(&expected));
    assert_eq!(hub.fetched(), Vec::<String>::new());
    assert_eq!(text(&hub.offline(&GENERATE)), text(&expected));
}

#[test]
fn a_model_that_iiet_wrote_has_all_files_of_its_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("iiet");
    let converted = Command::new(env!("CARGO_BIN_EXE_iiet"))
        .args(["convert", "--solver", "iterative_implicit_euler", "--model"])
        .args([&llama(), Path::new("--out"), &model])
        .output();
    text(&converted.unwrap());
    text(&Hub::new(&model).run(&GENERATE));
}

#[test]
fn a_fetch_that_failed_leaves_no_part_of_a_model_in_use() {
    let hub = Hub::new(&llama());
    let file = format!("{MODEL}/tokenizer_config.json");
    hub.change(|state| {
        state.status.insert(file, 500);
    });
    hub.refuses("tokenizer_config.json: request error: http status: 500");
    assert_eq!(hub.offline(&GENERATE).status.code(), Some(1));
    hub.change(|state| state.status.clear());
    text(&hub.run(&GENERATE));
}

#[test]
fn a_file_that_arrived_in_part_is_fetched_again() {
    let hub = Hub::new(&llama());
    let file = format!("{MODEL}/model-00001-of-00002.safetensors");
    hub.change(|state| state.short.push(file));
    hub.refuses("model-00001-of-00002.safetensors: 20468 of 40936 bytes arrived");
    hub.change(|state| state.short.clear());
    text(&hub.run(&GENERATE));
}

#[test]
fn weights_that_arrived_damaged_are_refused_and_fetched_again() {
    let hub = Hub::new(&llama());
    let file = format!("{MODEL}/model-00001-of-00002.safetensors");
    hub.change(|state| state.damaged.push(file.clone()));
    hub.refuses("model-00001-of-00002.safetensors: arrived with SHA-256 ");
    assert_eq!(hub.offline(&GENERATE).status.code(), Some(1));
    hub.change(|state| state.damaged.clear());
    hub.fetched();
    text(&hub.run(&GENERATE));
    assert!(hub.fetched().contains(&file));
}

#[test]
fn of_a_newer_revision_only_the_changed_files_are_fetched() {
    let hub = Hub::new(&llama());
    text(&hub.run(&GENERATE));
    hub.fetched();
    let changed = format!("{MODEL}/generation_config.json");
    hub.add(&changed, b"{\"eos_token_id\": 1}");
    hub.change(|state| state.revision = "b".repeat(40));
    let newer = hub.run(&GENERATE);
    assert_eq!(hub.fetched(), [changed]);
    assert!(said(&newer).contains(&"b".repeat(40)), "{}", said(&newer));
    assert!(said(&hub.offline(&GENERATE)).contains(&"b".repeat(40)));
}

#[test]
fn a_model_that_needs_a_token_is_fetched_with_hf_token() {
    let hub = Hub::new(&llama());
    hub.change(|state| state.gated = true);
    hub.refuses("HF_TOKEN");
    let mut command = hub.command(&hub.endpoint, &GENERATE);
    text(&command.env("HF_TOKEN", "hf_token").output().unwrap());
}

#[test]
fn the_environment_can_name_the_cache_and_forbid_to_ask_the_hub() {
    let hub = Hub::new(&llama());
    let elsewhere = tempfile::tempdir().unwrap();
    let run = |offline: bool| {
        let mut command = hub.command(&hub.endpoint, &GENERATE);
        command.env("HF_HUB_CACHE", elsewhere.path());
        if offline {
            command.env("HF_HUB_OFFLINE", "1");
        }
        command.output().unwrap()
    };
    assert!(said(&run(true)).contains("HF_HUB_OFFLINE is set"));
    assert_eq!(hub.fetched(), Vec::<String>::new());
    let first = run(false);
    text(&first);
    assert!(!hub.fetched().is_empty());
    assert!(elsewhere.path().join("models--org--model").is_dir());
    assert_eq!(text(&run(true)), text(&first));
    assert_eq!(hub.fetched(), Vec::<String>::new());
}

#[test]
fn a_data_set_is_fetched_once_and_then_used_without_a_network() {
    let hub = Hub::new(&llama());
    let rows = Path::new(env!("CARGO_MANIFEST_DIR")).join("../eval/tests/formats/rows.parquet");
    let rows = fs::read(rows).unwrap();
    for file in ["0000", "0001"] {
        hub.add(&format!("{DATA}/ARC-Easy/test/{file}.parquet"), &rows);
    }
    let arguments = ["eval", "--model", MODEL, "--tasks", "arc_easy"];
    let first = hub.run(&arguments);
    assert!(said(&first).contains("6 items"), "{}", said(&first));
    hub.fetched();
    assert_eq!(text(&hub.run(&arguments)), text(&first));
    assert_eq!(hub.fetched(), Vec::<String>::new());
    assert_eq!(text(&hub.offline(&arguments)), text(&first));
}
