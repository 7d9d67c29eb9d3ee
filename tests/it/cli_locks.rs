//! Who may share what on one machine: a database file has one server whatever it is called, and a
//! data folder keeps the work of each process apart.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::support::database::{Backend, Database};
use crate::support::process::{Application, Server, data_dir};
use crate::support::wait::eventually;

#[test]
fn another_name_for_a_database_file_is_no_way_around_its_server() {
    let database = Database::fresh(Backend::Sqlite);
    let _server = Server::on(&database, &[]);
    let file = database.url().strip_prefix("sqlite://").expect("a path");
    let folder = data_dir(&database);
    let soft = database.folder().join("soft.db");
    let hard = database.folder().join("hard.db");
    std::os::unix::fs::symlink(file, &soft).unwrap();
    fs::hard_link(file, &hard).unwrap();
    for name in [&soft, &hard] {
        let url = format!("sqlite://{}", name.display());
        let refused = Server::try_start(&["--database", &url, "--data-dir", &folder]);
        let said = refused.err().expect("a second server is refused").failure().stderr.clone();
        assert!(said.contains("another ringback server is running on"), "{said}");
    }
}

#[test]
fn a_second_server_in_a_data_folder_leaves_the_work_of_the_first_alone() {
    let (one, two) = (Database::fresh(Backend::Sqlite), Database::fresh(Backend::Sqlite));
    let folder = data_dir(&one);
    let application = Application::create(&one, "shop");
    let first = Server::on(&one, &[]);
    let mut second = Server::try_start(&["--database", two.url(), "--data-dir", &folder])
        .unwrap_or_else(|said| panic!("{}", said.stderr));
    let client = first.client_of(&application);
    client.put("/v1/files/a.txt", "bytes").expect(201);
    let job = json!({
        "type": "urn:job:archive.create",
        "specification": {
            "sources": [{"path": "/a.txt"}], "destination": {"path": "/a.zip"}, "archiveType": "zip",
        },
    });
    let id = client.post("/v1/jobs", &job).expect(202).json()["id"].as_str().unwrap().to_owned();
    let done = client.get(&format!("/v1/jobs/{id}?wait=20")).expect(200).json();
    assert_eq!(done["status"], "success", "{done}");

    // What a killed server leaves is removed by whoever starts next.
    let work = || fs::read_dir(format!("{folder}/work")).unwrap().count();
    let both = work();
    second.sigkill();
    second.start_again();
    eventually("the remains to go", Duration::from_secs(10), || (work() == both).then_some(()));
}
