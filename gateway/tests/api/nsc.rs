//! `sotto-gateway accounts nsc` and `init --nsc`: the program itself.

use std::path::Path;

use serde_json::{Value, json};
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_service::Layout;

use super::program::{gateway, refused};

fn init(dir: &Path, more: &[&str]) -> std::process::Output {
    let dir = dir.to_str().unwrap();
    let init = ["init", "--dir", dir, "--org", "acme", "--project", "field"];
    gateway(&[&init, more].concat())
}

fn said(arguments: &[&str]) -> Value {
    let output = gateway(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_server_is_exported_and_another_one_made_under_its_operator() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    assert!(init(&first, &[]).status.success());
    let nsc = folder.path().join("nsc");
    let (dir, to) = (first.to_str().unwrap(), nsc.to_str().unwrap());

    let export = ["accounts", "nsc", "export", to, "--dir", dir];
    let exported = said(&[&export[..], &["--with-seeds", "--json"]].concat());
    let expected = json!({ "operator": "sotto", "accounts": 3, "seeds": 11, "seeds_away": [] });
    assert_eq!(exported, expected);
    assert!(refused(&gateway(&export)).contains("exists already"));

    // Reading needs no server.
    let read = said(&["accounts", "nsc", "import", to, "--json"]);
    let keys = KeyStore::open(&Layout::new(&first).accounts()).unwrap();
    assert_eq!(read["id"], keys.operator_id());
    assert_eq!(read["seeds"], 11);
    let accounts = read["accounts"].as_array().unwrap().iter();
    let names: Vec<_> = accounts.map(|account| &account["name"]).collect();
    assert_eq!(names, ["SYS", "acme", "acme devices"]);

    let second = folder.path().join("second");
    let adopt = ["--nsc", to, "--nsc-operator", "sotto"];
    let output = init(&second, &adopt);
    assert!(output.status.success(), "{output:?}");
    let adopted = KeyStore::open(&Layout::new(&second).accounts()).unwrap();
    assert_eq!(adopted.operator_id(), keys.operator_id());
    assert_ne!(adopted.system_account(), keys.system_account());

    // An interrupted one is made again, under the same operator only.
    std::fs::remove_file(Layout::new(&second).config()).unwrap();
    assert!(init(&second, &adopt).status.success());
    let third = folder.path().join("third");
    assert!(init(&third, &[]).status.success());
    std::fs::remove_file(Layout::new(&third).config()).unwrap();
    assert!(refused(&init(&third, &adopt)).contains("another operator"));
}

#[test]
fn what_cannot_be_exchanged_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let server = folder.path().join("server");
    assert!(init(&server, &[]).status.success());
    let dir = server.to_str().unwrap();
    let within = server.join("nsc");
    let within = within.to_str().unwrap();
    let export = ["accounts", "nsc", "export", within, "--dir", dir];
    let with_seeds = [&export[..], &["--with-seeds"]].concat();
    assert!(refused(&gateway(&with_seeds)).contains("within the server's directory"));
    assert!(gateway(&export).status.success());

    let import = ["accounts", "nsc", "import", dir];
    assert!(refused(&gateway(&import)).contains("no operator"));
    let another = folder.path().join("another");
    let adopt = init(&another, &["--nsc", within]);
    assert!(refused(&adopt).contains("seed of the operator `sotto`"));
    assert!(!Layout::new(&another).accounts().exists());
}
