//! What happens all day on machines where nothing is wrong.

use serde_json::{Value, json};

use super::random::Random;
use super::{Fields, Scene};

const HEX: &[u8] = b"0123456789ABCDEF";
const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const SYSMON: &str = "Microsoft-Windows-Sysmon/Operational";
const FIREWALL: &str = "Microsoft-Windows-Windows Firewall With Advanced Security/Firewall";

const USERS: [&str; 24] = [
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "kim",
    "leo", "mallory", "nina", "oscar", "peggy", "quinn", "rupert", "sybil", "trent", "uma",
    "victor", "wendy", "yuri",
];

const PROGRAMS: [(&str, &str, &str); 14] = [
    (
        r"C:\Windows\System32\svchost.exe",
        "Microsoft Corporation",
        r"svchost.exe -k netsvcs -p",
    ),
    (
        r"C:\Windows\explorer.exe",
        "Microsoft Corporation",
        r"C:\Windows\Explorer.EXE",
    ),
    (
        r"C:\Program Files\Google\Chrome\Application\chrome.exe",
        "Google LLC",
        "chrome.exe --type=renderer",
    ),
    (
        r"C:\Program Files\Microsoft Office\root\Office16\OUTLOOK.EXE",
        "Microsoft Corporation",
        "OUTLOOK.EXE",
    ),
    (
        r"C:\Program Files\Microsoft Office\root\Office16\WINWORD.EXE",
        "Microsoft Corporation",
        "WINWORD.EXE /n",
    ),
    (
        r"C:\Windows\System32\cmd.exe",
        "Microsoft Corporation",
        "cmd.exe /c dir",
    ),
    (
        r"C:\Windows\System32\conhost.exe",
        "Microsoft Corporation",
        "conhost.exe 0xffffffff -ForceV1",
    ),
    (
        r"C:\Windows\System32\taskhostw.exe",
        "Microsoft Corporation",
        "taskhostw.exe",
    ),
    (
        r"C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe",
        "Microsoft Corporation",
        "powershell.exe -File inventory.ps1",
    ),
    (
        r"C:\Program Files\Git\cmd\git.exe",
        "The Git Development Community",
        "git.exe status",
    ),
    (
        r"C:\Windows\System32\msiexec.exe",
        "Microsoft Corporation",
        "msiexec.exe /V",
    ),
    (
        r"C:\Program Files\7-Zip\7z.exe",
        "Igor Pavlov",
        "7z.exe a backup.7z",
    ),
    (
        r"C:\Windows\System32\whoami.exe",
        "Microsoft Corporation",
        "whoami",
    ),
    (
        r"C:\Windows\System32\ipconfig.exe",
        "Microsoft Corporation",
        "ipconfig /all",
    ),
];

pub(super) fn event(random: &mut Random, scene: &Scene) -> Fields {
    let computer = computer(random);
    let user = user(random);
    match random.below(100) {
        0..45 => {
            let (image, company, command) = *random.pick(&PROGRAMS);
            let parent = random.pick(&PROGRAMS[..2]).0;
            let command = format!("{command} #{}", scene.index % 977);
            process(random, &computer, &user, image, &command, parent, company)
        }
        45..60 => network(random, &computer, &user, 443),
        60..75 => {
            let name = format!("{}.example.net", random.text(LOWER, 9));
            dns(&computer, random.pick(&PROGRAMS).0, &name)
        }
        75..85 => logon(random, &computer, &user, 4624, 3, "10.0.7.21"),
        85..87 => logon(random, &computer, &user, 4625, 3, "10.0.7.22"),
        87..92 => {
            let bytes = 1_000 + random.below(900_000);
            transfer(&computer, &user, "203.0.113.10", bytes)
        }
        92..96 => registry(
            &computer,
            &user,
            r"HKU\S-1-5-21\Software\App\LastUsed",
            "DWORD (0x1)",
        ),
        _ => access(
            &computer,
            r"C:\Windows\System32\svchost.exe",
            r"C:\Windows\explorer.exe",
            "0x1000",
        ),
    }
}

pub(super) fn computer(random: &mut Random) -> String {
    format!("ws{:03}.corp.example", random.below(200))
}

pub(super) fn user(random: &mut Random) -> String {
    format!(r"CORP\{}", random.pick(&USERS))
}

pub(super) fn process(
    random: &mut Random,
    computer: &str,
    user: &str,
    image: &str,
    command: &str,
    parent: &str,
    company: &str,
) -> Fields {
    let file = image.rsplit('\\').next().unwrap_or(image);
    let hashes = format!(
        "SHA256={},IMPHASH={}",
        random.text(HEX, 64),
        random.text(HEX, 32)
    );
    let mut fields = sysmon(1, computer);
    fields.extend(object(json!({
        "ProcessGuid": guid(random), "ProcessId": 1_000 + random.below(60_000),
        "Image": image, "FileVersion": "10.0.19041.1 (WinBuild.160101.0800)", "Description": file,
        "Product": "Microsoft\u{ae} Windows\u{ae} Operating System", "Company": company,
        "OriginalFileName": file, "CommandLine": command, "CurrentDirectory": r"C:\Windows\system32\",
        "User": user, "LogonGuid": guid(random), "LogonId": format!("0x{:x}", random.below(1 << 24)),
        "TerminalSessionId": 1, "IntegrityLevel": "Medium", "Hashes": hashes,
        "ParentProcessGuid": guid(random), "ParentProcessId": 1_000 + random.below(60_000),
        "ParentImage": parent, "ParentCommandLine": parent, "ParentUser": r"NT AUTHORITY\SYSTEM",
    })));
    fields
}

pub(super) fn network(random: &mut Random, computer: &str, user: &str, port: u32) -> Fields {
    let mut fields = sysmon(3, computer);
    fields.extend(object(json!({
        "ProcessGuid": guid(random), "Image": random.pick(&PROGRAMS).0, "User": user,
        "Protocol": "tcp", "Initiated": "true", "SourceIp": "10.0.4.17",
        "SourcePort": 49_152 + random.below(16_000), "DestinationIsIpv6": "false",
        "DestinationIp": format!("198.51.100.{}", random.below(250)),
        "DestinationHostname": "-", "DestinationPort": port,
    })));
    fields
}

pub(super) fn dns(computer: &str, image: &str, name: &str) -> Fields {
    let mut fields = sysmon(22, computer);
    fields.extend(object(json!({
        "Image": image, "QueryName": name, "QueryLength": name.len(), "QueryStatus": "0",
        "QueryResults": "::ffff:198.51.100.7;",
    })));
    fields
}

pub(super) fn registry(computer: &str, user: &str, target: &str, details: &str) -> Fields {
    let mut fields = sysmon(13, computer);
    fields.extend(object(json!({
        "EventType": "SetValue", "Image": r"C:\Windows\regedit.exe", "User": user,
        "TargetObject": target, "Details": details,
    })));
    fields
}

pub(super) fn access(computer: &str, source: &str, target: &str, granted: &str) -> Fields {
    let mut fields = sysmon(10, computer);
    fields.extend(object(json!({
        "SourceImage": source, "TargetImage": target, "GrantedAccess": granted,
        "CallTrace": r"C:\Windows\SYSTEM32\ntdll.dll+9d4c4|C:\Windows\System32\KERNELBASE.dll+2c13e",
    })));
    fields
}

pub(super) fn logon(
    random: &mut Random,
    computer: &str,
    user: &str,
    event_id: u32,
    logon_type: u32,
    address: &str,
) -> Fields {
    let name = user.rsplit('\\').next().unwrap_or(user);
    let status = if event_id == 4625 {
        "0xc000006d"
    } else {
        "0x0"
    };
    object(json!({
        "Channel": "Security", "Provider_Name": "Microsoft-Windows-Security-Auditing",
        "EventID": event_id, "Computer": computer, "TargetUserName": name,
        "TargetDomainName": "CORP", "LogonType": logon_type, "IpAddress": address,
        "IpPort": 49_152 + random.below(16_000), "Status": status, "WorkstationName": "-",
        "LogonProcessName": "NtLmSsp", "AuthenticationPackageName": "NTLM", "User": user,
    }))
}

pub(super) fn transfer(computer: &str, user: &str, address: &str, bytes: u64) -> Fields {
    object(json!({
        "Channel": FIREWALL, "Provider_Name": "Microsoft-Windows-Windows Firewall With Advanced Security",
        "EventID": 5157, "Computer": computer, "User": user, "Direction": "outbound",
        "DestAddress": address, "DestPort": 443, "Protocol": 6, "BytesSent": bytes,
    }))
}

pub(super) fn service(computer: &str, name: &str, path: &str) -> Fields {
    object(json!({
        "Channel": "System", "Provider_Name": "Service Control Manager", "EventID": 7045,
        "Computer": computer, "ServiceName": name, "ImagePath": path,
        "ServiceType": "user mode service", "StartType": "auto start", "AccountName": "LocalSystem",
    }))
}

pub(super) fn object(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        other => Fields::from_iter([("value".to_owned(), other)]),
    }
}

fn sysmon(event_id: u32, computer: &str) -> Fields {
    object(json!({
        "Channel": SYSMON, "Provider_Name": "Microsoft-Windows-Sysmon", "EventID": event_id,
        "Computer": computer, "RuleName": "-",
    }))
}

fn guid(random: &mut Random) -> String {
    let mut part = |len| random.text(HEX, len);
    format!(
        "{{{}-{}-{}-{}-{}}}",
        part(8),
        part(4),
        part(4),
        part(4),
        part(12)
    )
}
