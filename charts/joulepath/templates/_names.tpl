{{/* "joulepath" for a release of that name, else RELEASE-joulepath; short enough for every suffix */}}
{{- define "joulepath.name" -}}
{{- $name := ternary .Release.Name (printf "%s-joulepath" .Release.Name) (contains "joulepath" .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that select the pods of a part: (list $ "agent") */}}
{{- define "joulepath.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: joulepath
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "joulepath.labels" -}}
{{- $root := index . 0 -}}
{{ include "joulepath.selector" . }}
app.kubernetes.io/part-of: joulepath
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Name, namespace and labels of an object of a part: (list $ "agent") */}}
{{- define "joulepath.meta" -}}
{{ include "joulepath.clusterMeta" . }}
namespace: {{ (index . 0).Release.Namespace }}
{{- end -}}

{{- define "joulepath.clusterMeta" -}}
name: {{ include "joulepath.name" (index . 0) }}-{{ index . 1 }}
labels:
  {{- include "joulepath.labels" . | nindent 2 }}
{{- end -}}

{{- define "joulepath.image" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- (index $root.Values $part).image | default (printf "%s/%s:%s" $root.Values.image.registry $part ($root.Values.image.tag | default $root.Chart.AppVersion)) -}}
{{- end -}}

{{/* Labels and annotations of the pods of a part: (list $ "agent" PORT) */}}
{{- define "joulepath.podMeta" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "joulepath.labels" . | nindent 2 }}
{{- if $root.Values.metrics.annotations }}
annotations:
  prometheus.io/scrape: "true"
  prometheus.io/port: {{ index . 2 | quote }}
  prometheus.io/path: /metrics
  {{- if include "joulepath.secureMetrics" $root }}
  prometheus.io/scheme: https
  {{- end }}
{{- end }}
{{- end -}}

{{/* Whether metrics are for those only whom the API server lets read them; empty if not */}}
{{- define "joulepath.secureMetrics" -}}
{{- if .Values.metrics.secure }}true{{ end -}}
{{- end -}}

{{/* Secret with the certificate of the metrics */}}
{{- define "joulepath.metricsSecret" -}}
{{- (.Values.metrics.certificate | default dict).existingSecret | default (printf "%s-metrics" (include "joulepath.name" .)) -}}
{{- end -}}

{{/* Rule of a ClusterRole: asking who is at the metrics, and whether they may read them */}}
{{- define "joulepath.reviewRules" -}}
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
{{- end -}}

{{/* What may be done with jobs of each kind: verbs in, rules out */}}
{{- define "joulepath.jobRules" -}}
{{- $verbs := . -}}
{{- range $group, $resource := dict "batch" "jobs" "jobset.x-k8s.io" "jobsets" "kubeflow.org" "pytorchjobs" "trainer.kubeflow.org" "trainjobs" }}
- apiGroups: [{{ $group }}]
  resources: [{{ $resource }}]
  verbs: {{ $verbs | toJson }}
{{- end }}
{{- end -}}

{{/* Where and how the pods of a part run */}}
{{- define "joulepath.podSpec" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $values := index $root.Values $part -}}
serviceAccountName: {{ include "joulepath.name" $root }}-{{ $part }}
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What operator and webhook may do on their node: nothing */}}
{{- define "joulepath.unprivilegedPod" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "joulepath.unprivileged" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* The subject that a binding of a part speaks of */}}
{{- define "joulepath.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "joulepath.name" (index . 0) }}-{{ index . 1 }}
    namespace: {{ (index . 0).Release.Namespace }}
{{- end -}}

{{/* ServiceAccount, and the bindings of the part's ClusterRole and Role: (list $ "agent") */}}
{{- define "joulepath.account" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "joulepath.meta" . | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  {{- include "joulepath.clusterMeta" . | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ include "joulepath.name" $root }}-{{ $part }}
{{ include "joulepath.subjects" . }}
{{- end -}}

{{/* What a container of the agent's pod may do: (list $ CAPABILITY...) */}}
{{- define "joulepath.leastRights" -}}
{{- $capabilities := rest . -}}
{{- with index . 0 -}}
securityContext:
  {{- $least := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL") "add" $capabilities) }}
  {{- /* A container without capabilities is given none by a site either. */}}
  {{- $site := ternary .Values.agent.securityContext (omit .Values.agent.securityContext "capabilities" "privileged") (not (empty $capabilities)) }}
  {{- toYaml (mergeOverwrite $least (deepCopy $site)) | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Image, rights and environment of a container that uses NVML, as most of the agent's pod do: (list $ CAPABILITY...) */}}
{{- define "joulepath.nvml" -}}
{{- $capabilities := rest . -}}
{{- with index . 0 -}}
image: {{ include "joulepath.image" (list . "agent") }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{ include "joulepath.leastRights" (prepend $capabilities .) }}
env:
  - name: NODE_NAME
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  # To NVIDIA's container runtime: all GPUs, and of its libraries only the one that manages them.
  - {name: NVIDIA_VISIBLE_DEVICES, value: all}
  - {name: NVIDIA_DRIVER_CAPABILITIES, value: utility}
  - {name: JOULEPATH_LOG_LEVEL, value: {{ .Values.logLevel }}}
  - {name: JOULEPATH_SILENCE_LIMIT, value: {{ .Values.agent.silenceLimitSeconds | quote }}}
  - {name: JOULEPATH_ON_FOREIGN_CLOCK, value: {{ .Values.agent.onForeignClock }}}
  - {name: JOULEPATH_PLAN_TIME_TO_LIVE, value: {{ .Values.agent.planTimeToLiveSeconds | quote }}}
  - {name: JOULEPATH_MAX_SLOWDOWN, value: {{ .Values.agent.maxSlowdownPercent | quote }}}
  {{- with .Values.agent.siteClocks }}
  - {name: JOULEPATH_SITE_CLOCKS, value: {{ . | quote }}}
  {{- end }}
  {{- with .Values.agent.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
{{- end -}}
