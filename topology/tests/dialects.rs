//! What files from elsewhere look like, and what is said of those that cannot be read.

use rccl_topology::system::{BusId, System};
use rccl_topology::xml::{self, Parsed};

fn parse(text: &str) -> Parsed<System> {
    xml::parse_system(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

fn notes(parsed: &Parsed<System>) -> Vec<String> {
    parsed.notes.iter().map(ToString::to_string).collect()
}

fn error(text: &[u8]) -> String {
    xml::parse_system(text).unwrap_err().to_string()
}

#[test]
fn declarations_marks_line_ends_and_comments_do_not_matter() {
    let plain = parse("<system version=\"1\">\n  <cpu numaid=\"0\"/>\n</system>\n").value;
    for text in [
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<system version=\"1\">\r\n  <cpu numaid=\"0\"/>\r\n</system>\r\n",
        "\u{feff}<system version='1'><cpu numaid='0'></cpu></system>",
        "<!-- a -->\n<system version=\"0x1\"><!-- b --><cpu numaid=\"0\"/><!-- c --></system><!-- d -->",
        "<system version=\"1\">text<cpu numaid=\"0\"/><![CDATA[<cpu>]]></system>",
    ] {
        let parsed = parse(text);
        assert_eq!((parsed.value, parsed.notes), (plain.clone(), vec![]), "{text}");
    }
}

#[test]
fn numbers_may_be_decimal_hexadecimal_or_not_known() {
    let parsed = parse(
        r#"<system><cpu numaid="-1" familyid="0x19" modelid="" host_hash="392d9598e39e6a8f">
          <nic><net name="a&amp;b &quot;c&#10;" speed="-1" guid="0x0F" port=" 1 " latency="1.5" gdr="1" maxconn="10.0"/></nic>
        </cpu></system>"#,
    );
    let cpu = &parsed.value.cpus[0];
    assert_eq!((cpu.numa, cpu.family, cpu.model), (None, Some(25), None));
    assert_eq!(cpu.host.unwrap().0, 0x392d_9598_e39e_6a8f);
    let net = &cpu.nics[0].nets[0];
    assert_eq!((net.name.as_deref(), net.speed, net.port), (Some("a&b \"c\n"), None, Some(1)));
    assert_eq!((net.guid.unwrap().0, net.latency, net.gdr, net.dev), (15, Some(1.5), Some(true), None));
    assert_eq!(net.max_connections, Some(10));
    assert_eq!(parse(&xml::write_system(&parsed.value)).value, parsed.value);
}

#[test]
fn a_new_version_of_nccl_writes_more() {
    let parsed = parse(
        r#"<system version="1">
  <cpu numaid="0">
    <pci busid="0002:81:00.0" class="0x030200" link_speed="64.0 GT/s PCIe" link_width="2" moon="full">
      <gpu dev="0" sm="107" mlopart="1" rank="1" gdr="1">
        <nvlink target="fffffff:ff:ff.0" count="36" tclass="0x068000"/>
        <c2c bw="56376" count="7"/>
      </gpu>
      <nic><gin name="mlx5_0"/></nic>
      <pcilink target="0002:82:00.0"/>
    </pci>
  </cpu>
</system>"#,
    );
    let device = &parsed.value.cpus[0].devices[0];
    let gpu = &device.gpus[0];
    let fabric: BusId = "fffffff:ff:ff.0".parse().unwrap();
    assert_eq!((gpu.part, gpu.links[0].target, gpu.c2c[0].bandwidth), (Some(1), fabric, Some(56_376)));
    assert_eq!(device.joined, ["0002:82:00.0".parse().unwrap()]);
    assert_eq!(
        notes(&parsed),
        ["3:91: the attribute moon of <pci> is not known", "8:12: <gin> inside of <nic> is not known",]
    );
    assert_eq!(parse(&xml::write_system(&parsed.value)).value, parsed.value);
}

#[test]
fn what_is_unknown_may_be_much() {
    let parsed = parse(&format!("<system>{}</system>", "<moon/>".repeat(1000)));
    assert_eq!(parsed.notes.len(), 64);
    assert_eq!(parsed.notes[63].words, "there is more from here on that is left out");
}

#[test]
fn errors_name_the_place_and_the_rule() {
    for (text, expected) in [
        (
            "<system>\n <cpu numaid='x'/></system>",
            "2:15: numaid=\"x\" of <cpu> makes no sense; it should be a whole number",
        ),
        ("<system><cpu><pci class='0x03'/></cpu></system>", "1:14: <pci> has no busid; add busid=\"...\""),
        (
            "<system><cpu><pci busid='3b'/></cpu></system>",
            "1:26: busid=\"3b\" of <pci> makes no sense; a PCI address is domain:bus:device.function in hexadecimal, \
             as 0000:3b:00.0",
        ),
        (
            "<system><cpu affinity='0-7'/></system>",
            "1:24: affinity=\"0-7\" of <cpu> makes no sense; a mask is words of up to 8 hexadecimal digits with \
             commas between, as 00000003,ffffffff",
        ),
        (
            "<graphs version='1'/>",
            "1:1: the root is <graphs>, not <system>; a graph file goes where graphs are read: \
             `rccl topo --graph FILE`",
        ),
        (
            "<system>\n<cpu>\n</system>",
            "2:1: <cpu> is never closed: </system> comes at 3:1 first; write </cpu>, or <cpu .../> where nothing is \
             inside",
        ),
        (
            "<system>\n  <cpu/>\n",
            "1:1: <system> is never closed: the file ends first; write </system>, or <system .../> where nothing is \
             inside",
        ),
    ] {
        assert_eq!(error(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn what_is_no_xml_at_all_has_a_place_too() {
    for (text, place) in [
        (&b""[..], "1:1: "),
        (b"not XML", "1:1: "),
        (b"<system>\n<cpu numaid=0/></system>", "2:13: "),
        (b"<system>\n</cpu></system>", "2:1: "),
        (b"<system>&moon;</system>", "1:9: "),
        (b"<!DOCTYPE system [<!ENTITY a 'b'>]><system/>", "1:1: "),
        (b"<system>\n\xff</system>", "2:1: "),
        (b"<system a='1' a='2'/>", "1:15: "),
    ] {
        let words = error(text);
        assert!(words.starts_with(place), "{}: {words}", String::from_utf8_lossy(text));
    }
}

#[test]
fn hostile_files_are_refused_before_they_cost_much() {
    let deep = "<pci busid='0:0.0'>".repeat(100_000);
    assert!(error(format!("<system><cpu>{deep}").as_bytes()).contains("more than 64 elements deep"));
    let wide: String = (0..100_000).map(|number| format!(" a{number}=''")).collect();
    assert!(error(format!("<system{wide}/>").as_bytes()).contains("this tag has more than 64 KiB"));
    assert!(error(&vec![b' '; (4 << 20) + 1]).contains("it has more than 4 MiB"));
    let cpus = "<cpu/>".repeat(1025);
    assert!(error(format!("<system>{cpus}</system>").as_bytes()).contains("more than 1024 NUMA nodes"));
}

#[test]
fn a_path_that_leads_to_no_file() {
    let error = xml::load_system("/nowhere/topo.xml".as_ref()).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/topo.xml: cannot be read: No such file"), "{error}");
    let error = xml::load_system("/dev/zero".as_ref()).unwrap_err().to_string();
    assert!(error.starts_with("/dev/zero: it has more than 4 MiB"), "{error}");
}
