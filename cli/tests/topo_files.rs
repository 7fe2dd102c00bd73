//! `rccl topo` on real files: tree, distances, JSON, XML, pictures, and what it says of files that it cannot read.

mod topo;

use std::process::Command;
use topo::{nccl, refused, stdout, topo};

#[test]
fn a_tree_shows_what_hangs_on_what() {
    let text = stdout(&topo(&[&nccl("oci-h100.xml")]));
    let start = "\
NUMA node 0, x86_64 GenuineIntel, family 6, model 143, CPUs 0-55,112-167
  PCI switch 0000:08:00.0, 1000:c030, 5.0 GT/s x16, 6 GB/s
    PCI switch 0000:0d:00.0, 1000:c030, 32.0 GT/s x16, 48 GB/s
      GPU 0000:0f:00.0, 10de:2330, 32.0 GT/s x16, 48 GB/s
        gpu 0, rank 0, sm 90, adapters reach its memory
          5 x NVLink to switch 0000:1c:00.0
          5 x NVLink to switch 0000:1b:00.0
          4 x NVLink to switch 0000:1a:00.0
          4 x NVLink to switch 0000:1d:00.0
    PCI switch 0000:0a:00.0, 1000:c030, 32.0 GT/s x16, 48 GB/s
      NIC 0000:0c:00.0, 15b3:1021, 32.0 GT/s x16, 48 GB/s
        net 0 mlx5_0, port 1, 180 Gb/s, 22.5 GB/s, reaches GPUs' memory
";
    assert!(text.starts_with(start), "{text}");
    let text = stdout(&topo(&[&nccl("yccl-topo.xml")]));
    let start = "host 0, identity 0x392d9598e39e6a8f\n  NUMA node 0, x86_64 GenuineIntel, family 6, model 85, CPUs 0,2,4,";
    assert!(text.starts_with(start), "{text}");
    assert_eq!(text.matches("net ").count(), 10);
}

#[test]
fn distances_follow_the_tree() {
    let text = stdout(&topo(&[&nccl("yccl-topo.xml"), "--paths"]));
    let table = text.split_once("path types, and GB/s of the narrowest link\n").unwrap().1;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "                     gpu 0      gpu 1      gpu 2      gpu 3");
    assert_eq!(lines[1], "gpu 0                -          PHB 12     SYS 10     SYS 10");
    assert_eq!(lines[5], "net eno1np0          PHB 0.125  PHB 0.125  SYS 0.125  SYS 0.125");
    assert_eq!(lines.len(), 1 + 4 + 10 + 2);
}

#[test]
fn programs_get_everything() {
    let (system, graph) = (nccl("yccl-topo.xml"), nccl("yccl-graph.xml"));
    let text = stdout(&topo(&[&system, "--graph", &graph, "--paths", "--json", "-"]));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cpu = &value["system"]["cpus"][0];
    assert_eq!((&cpu["numa"], &cpu["host"]), (&0.into(), &"0x392d9598e39e6a8f".into()));
    let device = &cpu["devices"][2];
    assert_eq!((&device["bus"], &device["speed"]), (&"0000:3b:00.0".into(), &"8.0 GT/s PCIe".into()));
    assert_eq!((&device["vendor"], &device["gpus"][0]["rank"]), (&"0x10de".into(), &0.into()));
    assert_eq!(cpu["nics"][0]["nets"][0]["name"], "br-3c276cd5dbc3");
    let ring = &value["graphs"]["graphs"][0];
    assert_eq!((&ring["pattern"], &ring["type_intra"]), (&"ring".into(), &"SYS".into()));
    assert_eq!(ring["channels"][0]["hops"][3], serde_json::json!({"kind": "gpu", "dev": 3}));
    let paths = value["paths"].as_array().unwrap();
    let path = paths.iter().find(|path| path["from"] == "gpu 0" && path["to"] == "gpu 2").unwrap();
    assert_eq!((&path["type"], &path["bandwidth"], &path["hops"]), (&"SYS".into(), &10.0.into(), &3.into()));
}

#[test]
fn xml_comes_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.xml"), folder.path().join("second.xml"));
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    for (name, option) in [("amd-8p-rome-n4.xml", None), ("yccl-graph.xml", Some("--graph"))] {
        let original = nccl(name);
        let input = |path| option.into_iter().chain([path]).collect::<Vec<&str>>();
        assert_eq!(stdout(&topo(&[input(&original), vec!["--xml", first]].concat())), "");
        assert_eq!(stdout(&topo(&[input(first), vec!["--xml", second]].concat())), "");
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(first), read(second));
        assert_eq!(stdout(&topo(&input(first))), stdout(&topo(&input(&original))));
    }
}

#[test]
fn pictures_are_drawn_of_both_kinds_of_files() {
    let svg = stdout(&topo(&[&nccl("azure-ndv4.xml"), "--svg", "-"]));
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>\n"));
    assert!(svg.contains(">GPU 0003:00:00.0</text>"), "{svg}");
    let svg = stdout(&topo(&["--graph", &nccl("yccl-graph.xml"), "--svg", "-"]));
    assert!(svg.contains(">ring: 1 channel,"), "{svg}");
}

#[test]
fn graphs_are_shown_by_themselves() {
    let text = stdout(&topo(&["--graph", &nccl("yccl-graph.xml")]));
    let start = "\
graph 0: ring, 1 channel, 10 GB/s inside of a host (SYS), 10 GB/s between hosts (PIX)
  channel 0: gpu 0 -> gpu 1 -> gpu 2 -> gpu 3 -> gpu 0
graph 1: balanced tree, 1 channel,";
    assert!(text.starts_with(start), "{text}");
}

/// Whatever this machine is, there are processors on it; and its own file says the same of its devices.
#[test]
fn without_a_file_this_host_is_shown() {
    let text = stdout(&topo(&[]));
    assert!(text.starts_with("processors ") && text.contains("\nNUMA node"), "{text}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    stdout(&topo(&["--xml", path]));
    let devices = stdout(&topo(&[path]));
    assert!(devices.starts_with("NUMA node") && text.contains(&devices), "{devices}");
}

#[test]
fn a_file_of_the_settings_replaces_this_host() {
    let path = nccl("oci-h100.xml");
    let by_setting = |path: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rccl"));
        command.arg("topo").args(arguments).env_clear().env("RCCL_TOPO_FILE", path).output().unwrap()
    };
    assert_eq!(stdout(&by_setting(&path, &[])), stdout(&topo(&[&path])));
    // What is named on the command line goes before it.
    let other = nccl("yccl-topo.xml");
    assert_eq!(stdout(&by_setting(&path, &[&other])), stdout(&topo(&[&other])));
    let output = by_setting("/nowhere.xml", &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("/nowhere.xml: cannot be read: No such file"), "{said}");
}

/// A stand-in for lldpd's command, which is not on every machine.
#[test]
fn switches_are_those_that_lldpd_names() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("lldpctl");
    let answer = r#"{"lldp":[{"interface":[{"name":"eth9","chassis":[{"name":[{"value":"leaf1"}]}],
        "port":[{"id":[{"type":"ifname","value":"swp7"}]}]}]}]}"#;
    let script = format!("#!/bin/sh\n[ \"$*\" = '-f json0' ] && cat <<'END'\n{answer}\nEND\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_rccl"));
    let output = command.args(["topo", "--json", "-"]).env_clear().env("PATH", path).output().unwrap();
    let value: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let expected = serde_json::json!([{"interface": "eth9", "system": "leaf1", "port": "swp7"}]);
    assert_eq!(value["host"]["neighbours"], expected);
}

#[test]
fn a_malformed_file_is_named_with_line_and_column() {
    let path = nccl("malformed-ndv6.xml");
    let said = refused(&[&path]);
    assert!(said.starts_with(&format!("rccl: {path}:3:5: <pci> is never closed")), "{said}");
}

#[test]
fn what_cannot_be_done_is_said() {
    assert!(refused(&["/nowhere.xml"]).contains("/nowhere.xml: cannot be read: No such file"));
    assert!(
        refused(&[&nccl("yccl-graph.xml")])
            .contains("yccl-graph.xml:1:1: the root is <graphs>, not <system>")
    );
    let system = nccl("yccl-topo.xml");
    assert!(
        refused(&[&system, "--xml", "-", "--json", "-"])
            .contains("only one of --json, --xml, --svg and --graph-out")
    );
    assert!(
        refused(&[&system, "--svg", "/nowhere/a.svg"]).contains("/nowhere/a.svg cannot be written: No such")
    );
}

#[test]
fn what_is_not_known_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.xml");
    std::fs::write(&path, "<system>\n <cpu numaid='0'><moon/></cpu>\n</system>").unwrap();
    let output = topo(&[path.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    let expected =
        format!("rccl: {}:2:18: <moon> inside of <cpu> is not known, and is left out\n", path.display());
    assert_eq!((output.status.code(), said), (Some(0), expected));
}

#[test]
fn odd_names_stay_in_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.xml");
    let text = "<system><cpu><nic><net name='a&#10;b&#x9b;c'/></nic></cpu></system>";
    std::fs::write(&path, text).unwrap();
    let shown = stdout(&topo(&[path.to_str().unwrap()]));
    assert!(shown.contains("    net a\u{fffd}b\u{fffd}c, speed unknown, 1.25 GB/s\n"), "{shown}");
}

/// Ranks of one host: all are listed, and its devices once.
#[test]
fn under_a_launcher_the_job_is_shown() {
    let rccl = env!("CARGO_BIN_EXE_rccl");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(rccl);
        command.args(["run", "-n", "3", "--timeout", "60", "--", rccl, "topo"]).args(arguments);
        stdout(&command.env_clear().env("PATH", "/usr/bin:/bin").output().unwrap())
    };
    let text = run(&[]);
    assert!(text.contains("job of 3 ranks on 1 host\n"), "{text}");
    assert!(text.contains(", ranks 0-2\n") && text.contains("host 0, identity 0x"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.json");
    assert_eq!(run(&["--json", path.to_str().unwrap()]), "");
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(value["job"]["hosts"][0]["ranks"], serde_json::json!([0, 1, 2]));
    assert!(!value["system"]["cpus"].as_array().unwrap().is_empty());
    assert_eq!(run(&["--local"]).matches("processors ").count(), 3);
}
