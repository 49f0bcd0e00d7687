//! What the API server does with a Deployment, type by type, as of Kubernetes 1.35.
//!
//! From `SetObjectDefaults_Deployment` (pkg/apis/apps/v1/zz_generated.defaults.go), which tells the defaults, and from the
//! Go types of apps/v1 and core/v1: a field that is no pointer and `omitempty` is left out where it is zero, a struct in
//! place is always written. Held by a trial that asks a real API server.

use super::{
    Literal::{False, Int, Null, Text},
    Rule::{Absent, Always, Each, From, Inner, Map, Quantities, Quantity, Zero},
    Type, empty_dir, pull_policy, rolling_update, service_account,
};

pub(super) static DEPLOYMENT: Type =
    Type { optional: &[], fields: &[("metadata", Inner(&METADATA)), ("spec", Always(&DEPLOYMENT_SPEC))] };

static DEPLOYMENT_SPEC: Type = Type {
    optional: &["minReadySeconds", "paused"],
    fields: &[
        ("replicas", Absent(Int(1))),
        ("selector", Inner(&LABEL_SELECTOR)),
        ("template", Always(&POD_TEMPLATE)),
        ("strategy", Always(&STRATEGY)),
        ("revisionHistoryLimit", Absent(Int(10))),
        ("progressDeadlineSeconds", Absent(Int(600))),
    ],
};

static STRATEGY: Type = Type {
    optional: &[],
    fields: &[
        ("type", Zero(Text("RollingUpdate"))),
        ("rollingUpdate", From(rolling_update)),
        ("rollingUpdate", Inner(&ROLLING_UPDATE)),
    ],
};

static ROLLING_UPDATE: Type =
    Type { optional: &[], fields: &[("maxUnavailable", Absent(Text("25%"))), ("maxSurge", Absent(Text("25%")))] };

static POD_TEMPLATE: Type =
    Type { optional: &[], fields: &[("metadata", Always(&METADATA)), ("spec", Always(&POD_SPEC))] };

static METADATA: Type = Type {
    optional: &[
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ],
    fields: &[("labels", Map), ("annotations", Map)],
};

static POD_SPEC: Type = Type {
    optional: &[
        "nodeName",
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "hostname",
        "subdomain",
        "readinessGates",
        "schedulingGates",
        "resourceClaims",
        "priorityClassName",
        "serviceAccount",
        "serviceAccountName",
    ],
    fields: &[
        ("volumes", Each(&VOLUME)),
        ("initContainers", Each(&CONTAINER)),
        ("containers", Each(&CONTAINER)),
        ("ephemeralContainers", Each(&CONTAINER)),
        ("restartPolicy", Zero(Text("Always"))),
        ("terminationGracePeriodSeconds", Absent(Int(30))),
        ("dnsPolicy", Zero(Text("ClusterFirst"))),
        ("nodeSelector", Map),
        ("serviceAccountName", From(service_account)),
        ("serviceAccount", From(service_account)),
        ("securityContext", Always(&POD_SECURITY)),
        ("imagePullSecrets", Each(&REFERENCE)),
        ("affinity", Inner(&AFFINITY)),
        ("schedulerName", Zero(Text("default-scheduler"))),
        ("tolerations", Each(&TOLERATION)),
        ("hostAliases", Each(&HOST_ALIAS)),
        ("dnsConfig", Inner(&DNS_CONFIG)),
        ("overhead", Quantities),
        ("topologySpreadConstraints", Each(&SPREAD)),
        ("resources", Inner(&RESOURCES)),
    ],
};

static CONTAINER: Type = Type {
    optional: &[
        "image",
        "command",
        "args",
        "workingDir",
        "resizePolicy",
        "volumeDevices",
        "stdin",
        "stdinOnce",
        "tty",
        "targetContainerName",
    ],
    fields: &[
        ("ports", Each(&PORT)),
        ("envFrom", Each(&ENV_FROM)),
        ("env", Each(&ENV)),
        ("resources", Always(&RESOURCES)),
        ("restartPolicyRules", Each(&RESTART_RULE)),
        ("volumeMounts", Each(&MOUNT)),
        ("livenessProbe", Inner(&PROBE)),
        ("readinessProbe", Inner(&PROBE)),
        ("startupProbe", Inner(&PROBE)),
        ("lifecycle", Inner(&LIFECYCLE)),
        ("terminationMessagePath", Zero(Text("/dev/termination-log"))),
        ("terminationMessagePolicy", Zero(Text("File"))),
        ("imagePullPolicy", From(|container| pull_policy(container, "imagePullPolicy", "image"))),
        ("securityContext", Inner(&SECURITY)),
    ],
};

static PORT: Type = Type { optional: &["name", "hostPort", "hostIP"], fields: &[("protocol", Zero(Text("TCP")))] };

static ENV: Type = Type { optional: &["value"], fields: &[("valueFrom", Inner(&ENV_SOURCE))] };

static ENV_SOURCE: Type = Type {
    optional: &[],
    fields: &[
        ("fieldRef", Inner(&FIELD)),
        ("resourceFieldRef", Inner(&RESOURCE_FIELD)),
        ("configMapKeyRef", Inner(&REFERENCE)),
        ("secretKeyRef", Inner(&REFERENCE)),
        ("fileKeyRef", Inner(&FILE_KEY)),
    ],
};

static ENV_FROM: Type =
    Type { optional: &["prefix"], fields: &[("configMapRef", Inner(&REFERENCE)), ("secretRef", Inner(&REFERENCE))] };

static FIELD: Type = Type { optional: &[], fields: &[("apiVersion", Zero(Text("v1")))] };

static RESOURCE_FIELD: Type =
    Type { optional: &["containerName"], fields: &[("divisor", Absent(Text("0"))), ("divisor", Quantity)] };

static FILE_KEY: Type = Type { optional: &[], fields: &[("optional", Absent(False))] };

/// Everything that has a name which may be left out, and else what stays as it is.
static REFERENCE: Type = Type { optional: &["name"], fields: &[] };

static RESOURCES: Type =
    Type { optional: &[], fields: &[("limits", Quantities), ("requests", Quantities), ("claims", Each(&CLAIM))] };

static CLAIM: Type = Type { optional: &["request"], fields: &[] };

static RESTART_RULE: Type = Type { optional: &["action"], fields: &[("exitCodes", Inner(&EXIT_CODES))] };

static EXIT_CODES: Type = Type { optional: &["operator", "values"], fields: &[] };

static MOUNT: Type = Type { optional: &["readOnly", "subPath", "subPathExpr"], fields: &[] };

static PROBE: Type = Type {
    optional: &["initialDelaySeconds"],
    fields: &[
        ("exec", Inner(&EXEC)),
        ("httpGet", Inner(&HTTP_GET)),
        ("tcpSocket", Inner(&TCP_SOCKET)),
        ("grpc", Inner(&GRPC)),
        ("timeoutSeconds", Zero(Int(1))),
        ("periodSeconds", Zero(Int(10))),
        ("successThreshold", Zero(Int(1))),
        ("failureThreshold", Zero(Int(3))),
    ],
};

static EXEC: Type = Type { optional: &["command"], fields: &[] };

static HTTP_GET: Type = Type {
    optional: &["host"],
    fields: &[("path", Zero(Text("/"))), ("scheme", Zero(Text("HTTP"))), ("httpHeaders", Each(&HTTP_HEADER))],
};

static HTTP_HEADER: Type = Type { optional: &[], fields: &[("value", Absent(Text("")))] };

static TCP_SOCKET: Type = Type { optional: &["host"], fields: &[] };

static GRPC: Type = Type { optional: &[], fields: &[("service", Absent(Text("")))] };

static LIFECYCLE: Type =
    Type { optional: &[], fields: &[("postStart", Inner(&LIFECYCLE_HANDLER)), ("preStop", Inner(&LIFECYCLE_HANDLER))] };

static LIFECYCLE_HANDLER: Type = Type {
    optional: &[],
    fields: &[
        ("exec", Inner(&EXEC)),
        ("httpGet", Inner(&HTTP_GET)),
        ("tcpSocket", Inner(&TCP_SOCKET)),
        ("sleep", Inner(&SLEEP)),
    ],
};

static SLEEP: Type = Type { optional: &[], fields: &[("seconds", Absent(Int(0)))] };

static SECURITY: Type =
    Type { optional: &[], fields: &[("capabilities", Inner(&CAPABILITIES)), ("seLinuxOptions", Inner(&SE_LINUX))] };

static CAPABILITIES: Type = Type { optional: &["add", "drop"], fields: &[] };

static SE_LINUX: Type = Type { optional: &["user", "role", "type", "level"], fields: &[] };

static POD_SECURITY: Type = Type {
    optional: &["supplementalGroups"],
    fields: &[("seLinuxOptions", Inner(&SE_LINUX)), ("sysctls", Each(&SYSCTL))],
};

static SYSCTL: Type = Type { optional: &[], fields: &[("value", Absent(Text("")))] };

static TOLERATION: Type = Type { optional: &["key", "operator", "value", "effect"], fields: &[] };

static HOST_ALIAS: Type = Type { optional: &["hostnames"], fields: &[] };

static DNS_CONFIG: Type = Type { optional: &["nameservers", "searches"], fields: &[("options", Each(&REFERENCE))] };

static SPREAD: Type = Type { optional: &["matchLabelKeys"], fields: &[("labelSelector", Inner(&LABEL_SELECTOR))] };

static LABEL_SELECTOR: Type =
    Type { optional: &[], fields: &[("matchLabels", Map), ("matchExpressions", Each(&REQUIREMENT))] };

static REQUIREMENT: Type = Type { optional: &["values"], fields: &[] };

static AFFINITY: Type = Type {
    optional: &[],
    fields: &[
        ("nodeAffinity", Inner(&NODE_AFFINITY)),
        ("podAffinity", Inner(&POD_AFFINITY)),
        ("podAntiAffinity", Inner(&POD_AFFINITY)),
    ],
};

static NODE_AFFINITY: Type = Type {
    optional: &[],
    fields: &[
        ("requiredDuringSchedulingIgnoredDuringExecution", Inner(&NODE_SELECTOR)),
        ("preferredDuringSchedulingIgnoredDuringExecution", Each(&PREFERRED_NODE)),
    ],
};

static NODE_SELECTOR: Type = Type { optional: &[], fields: &[("nodeSelectorTerms", Each(&NODE_TERM))] };

static PREFERRED_NODE: Type = Type { optional: &[], fields: &[("preference", Always(&NODE_TERM))] };

static NODE_TERM: Type =
    Type { optional: &[], fields: &[("matchExpressions", Each(&REQUIREMENT)), ("matchFields", Each(&REQUIREMENT))] };

static POD_AFFINITY: Type = Type {
    optional: &[],
    fields: &[
        ("requiredDuringSchedulingIgnoredDuringExecution", Each(&POD_TERM)),
        ("preferredDuringSchedulingIgnoredDuringExecution", Each(&PREFERRED_POD)),
    ],
};

static PREFERRED_POD: Type = Type { optional: &[], fields: &[("podAffinityTerm", Always(&POD_TERM))] };

static POD_TERM: Type = Type {
    optional: &["namespaces", "matchLabelKeys", "mismatchLabelKeys"],
    fields: &[("labelSelector", Inner(&LABEL_SELECTOR)), ("namespaceSelector", Inner(&LABEL_SELECTOR))],
};

/// All sources whose optional fields have these names and nothing else that matters.
static SIMPLE_VOLUME: Type = Type {
    optional: &[
        "fsType",
        "partition",
        "readOnly",
        "revision",
        "directory",
        "path",
        "user",
        "group",
        "tenant",
        "secretFile",
        "datasetName",
        "datasetUUID",
        "targetWWNs",
        "wwids",
        "storagePolicyName",
        "storagePolicyID",
        "volumeName",
        "volumeNamespace",
    ],
    fields: &[("secretRef", Inner(&REFERENCE)), ("options", Map)],
};

static VOLUME: Type = Type {
    optional: &[],
    fields: &[
        ("emptyDir", From(empty_dir)),
        ("emptyDir", Inner(&EMPTY_DIR)),
        ("hostPath", Inner(&HOST_PATH)),
        ("secret", Inner(&FILES)),
        ("configMap", Inner(&FILES)),
        ("downwardAPI", Inner(&DOWNWARD_FILES)),
        ("projected", Inner(&PROJECTED)),
        ("csi", Inner(&CSI)),
        ("ephemeral", Inner(&EPHEMERAL)),
        ("image", Inner(&IMAGE)),
        ("iscsi", Inner(&ISCSI)),
        ("rbd", Inner(&RBD)),
        ("azureDisk", Inner(&AZURE_DISK)),
        ("scaleIO", Inner(&SCALE_IO)),
        ("gcePersistentDisk", Inner(&SIMPLE_VOLUME)),
        ("awsElasticBlockStore", Inner(&SIMPLE_VOLUME)),
        ("gitRepo", Inner(&SIMPLE_VOLUME)),
        ("nfs", Inner(&READ_ONLY)),
        ("glusterfs", Inner(&READ_ONLY)),
        ("persistentVolumeClaim", Inner(&READ_ONLY)),
        ("flexVolume", Inner(&SIMPLE_VOLUME)),
        ("cinder", Inner(&SIMPLE_VOLUME)),
        ("cephfs", Inner(&SIMPLE_VOLUME)),
        ("flocker", Inner(&SIMPLE_VOLUME)),
        ("fc", Inner(&SIMPLE_VOLUME)),
        ("azureFile", Inner(&READ_ONLY)),
        ("vsphereVolume", Inner(&SIMPLE_VOLUME)),
        ("quobyte", Inner(&QUOBYTE)),
        ("photonPersistentDisk", Inner(&SIMPLE_VOLUME)),
        ("portworxVolume", Inner(&SIMPLE_VOLUME)),
        ("storageos", Inner(&SIMPLE_VOLUME)),
    ],
};

static READ_ONLY: Type = Type { optional: &["readOnly"], fields: &[] };

static QUOBYTE: Type = Type { optional: &["readOnly", "user", "group", "tenant"], fields: &[] };

static EMPTY_DIR: Type = Type { optional: &["medium"], fields: &[("sizeLimit", Quantity)] };

static HOST_PATH: Type = Type { optional: &[], fields: &[("type", Absent(Text("")))] };

static FILES: Type = Type {
    optional: &["name", "secretName", "items"],
    fields: &[("items", Each(&ITEM)), ("defaultMode", Absent(Int(420)))],
};

static ITEM: Type = Type { optional: &[], fields: &[] };

static DOWNWARD_FILES: Type =
    Type { optional: &[], fields: &[("items", Each(&DOWNWARD_FILE)), ("defaultMode", Absent(Int(420)))] };

static DOWNWARD_FILE: Type =
    Type { optional: &[], fields: &[("fieldRef", Inner(&FIELD)), ("resourceFieldRef", Inner(&RESOURCE_FIELD))] };

static PROJECTED: Type = Type {
    optional: &[],
    fields: &[("sources", Each(&PROJECTION)), ("sources", Absent(Null)), ("defaultMode", Absent(Int(420)))],
};

static PROJECTION: Type = Type {
    optional: &[],
    fields: &[
        ("secret", Inner(&PROJECTED_FILES)),
        ("configMap", Inner(&PROJECTED_FILES)),
        ("downwardAPI", Inner(&PROJECTED_DOWNWARD)),
        ("serviceAccountToken", Inner(&TOKEN)),
    ],
};

static PROJECTED_FILES: Type = Type { optional: &["name"], fields: &[("items", Each(&ITEM))] };

static PROJECTED_DOWNWARD: Type = Type { optional: &[], fields: &[("items", Each(&DOWNWARD_FILE))] };

static TOKEN: Type = Type { optional: &["audience"], fields: &[("expirationSeconds", Absent(Int(3600)))] };

static CSI: Type =
    Type { optional: &[], fields: &[("volumeAttributes", Map), ("nodePublishSecretRef", Inner(&REFERENCE))] };

static EPHEMERAL: Type = Type { optional: &[], fields: &[("volumeClaimTemplate", Inner(&CLAIM_TEMPLATE))] };

static CLAIM_TEMPLATE: Type =
    Type { optional: &[], fields: &[("metadata", Always(&METADATA)), ("spec", Always(&CLAIM_SPEC))] };

static CLAIM_SPEC: Type = Type {
    optional: &["accessModes", "volumeName"],
    fields: &[
        ("selector", Inner(&LABEL_SELECTOR)),
        ("resources", Always(&RESOURCES)),
        ("volumeMode", Absent(Text("Filesystem"))),
        ("dataSource", Inner(&DATA_SOURCE)),
        ("dataSourceRef", Inner(&DATA_SOURCE)),
    ],
};

static DATA_SOURCE: Type = Type { optional: &[], fields: &[("apiGroup", Absent(Null))] };

static IMAGE: Type = Type {
    optional: &["reference"],
    fields: &[("pullPolicy", From(|image| pull_policy(image, "pullPolicy", "reference")))],
};

static ISCSI: Type = Type {
    optional: &["fsType", "readOnly", "portals", "chapAuthDiscovery", "chapAuthSession"],
    fields: &[("lun", Absent(Int(0))), ("iscsiInterface", Zero(Text("default"))), ("secretRef", Inner(&REFERENCE))],
};

static RBD: Type = Type {
    optional: &["fsType", "readOnly"],
    fields: &[
        ("pool", Zero(Text("rbd"))),
        ("user", Zero(Text("admin"))),
        ("keyring", Zero(Text("/etc/ceph/keyring"))),
        ("secretRef", Inner(&REFERENCE)),
    ],
};

static AZURE_DISK: Type = Type {
    optional: &[],
    fields: &[
        ("cachingMode", Absent(Text("ReadWrite"))),
        ("fsType", Absent(Text("ext4"))),
        ("readOnly", Absent(False)),
        ("kind", Absent(Text("Shared"))),
    ],
};

static SCALE_IO: Type = Type {
    optional: &["sslEnabled", "protectionDomain", "storagePool", "volumeName", "readOnly"],
    fields: &[
        ("storageMode", Zero(Text("ThinProvisioned"))),
        ("fsType", Zero(Text("xfs"))),
        ("secretRef", Absent(Null)),
        ("secretRef", Inner(&REFERENCE)),
    ],
};
