{{- define "postroad.name" -}}
{{- if contains "postroad" .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- else -}}{{ printf "%s-postroad" .Release.Name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "postroad.road" -}}
{{ .Files.Get "files/road.yaml" }}
{{- end -}}

{{/* {root, component} */}}
{{- define "postroad.selector" -}}
app.kubernetes.io/name: postroad
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component | replace "_" "-" }}
{{- end -}}

{{- define "postroad.labels" -}}
{{ include "postroad.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: postroad
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "postroad.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "postroad.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ .Values.serviceAccount.name | default (include "postroad.name" .) }}{{- else -}}{{ .Values.serviceAccount.name | default "default" }}{{- end -}}
{{- end -}}

{{/* A value as the environment has it: lists of words separated by commas, maps and all else as JSON, strings as they are. */}}
{{- define "postroad.value" -}}
{{- if kindIs "string" . -}}{{ . }}
{{- else if kindIs "slice" . -}}{{ range $i, $one := . }}{{ if $i }},{{ end }}{{ if kindIs "string" $one }}{{ $one }}{{ else }}{{ toJson $one }}{{ end }}{{ end }}
{{- else -}}{{ toJson . }}
{{- end -}}
{{- end -}}

{{/* {root, component}: the settings of a pod. Faults are told here, where any template comes by. */}}
{{- define "postroad.env" -}}
{{- $road := include "postroad.road" .root | fromYaml -}}
{{- $values := .root.Values -}}
{{- $component := .component -}}
{{- range $name := list "kafka" "content_url" -}}
{{- if not (get $values.settings $name) -}}{{ fail (printf "settings.%s is not set: every pod needs it" $name) }}{{- end -}}
{{- end -}}
{{- if regexMatch "^(file:|/)" $values.settings.content_url -}}
{{ fail (printf "settings.content_url is %s: a folder of one pod is no store for all of them, name s3://, gs:// or az://" $values.settings.content_url) }}
{{- end -}}
{{- if not (or $values.settings.clickhouse $values.secretSettings.clickhouse) -}}
{{ fail "clickhouse is not set: give the URL of a server as secretSettings.clickhouse (or settings.clickhouse); events of several pods do not fit into chdb" }}
{{- end -}}
{{- range $name := $road.ours -}}
{{- if or (hasKey $values.settings $name) (get $values.secretSettings $name) -}}
{{ fail (printf "settings.%s: the chart writes this one itself" $name) }}
{{- end -}}
{{- end -}}
{{- range $name, $value := $values.settings }}
{{- if and $value (or (hasSuffix "_secret" $name) (hasSuffix "_password" $name) (regexMatch "://[^/@]*:[^/@]+@" (toString $value))) -}}
{{ fail (printf "settings.%s holds a secret, which would be told to whoever sees a pod: put it into a Secret, and give secretSettings.%s: {secret: NAME, key: KEY}" $name $name) }}
{{- end -}}
{{- if get $values.secretSettings $name -}}{{ fail (printf "%s is in settings and in secretSettings: one of them is enough" $name) }}{{- end -}}
{{- if has $component (get $road.only $name | default (list $component)) }}
- name: POSTROAD_{{ upper $name }}
  value: {{ include "postroad.value" $value | quote }}
{{- end }}
{{- end }}
{{- range $name, $place := $values.secretSettings }}
{{- if and $place (has $component (get $road.only $name | default (list $component))) }}
- name: POSTROAD_{{ upper $name }}
  valueFrom: {secretKeyRef: {name: {{ $place.secret | quote }}, key: {{ $place.key | quote }}}}
{{- end }}
{{- end }}
{{- if and $values.shaping (not (has $component (list "topics" "retain"))) }}
- {name: POSTROAD_SHAPING, value: /etc/postroad/shaping/shaping.toml}
{{- end }}
- {name: POSTROAD_DATA_DIR, value: /var/lib/postroad}
- {name: MALLOC_ARENA_MAX, value: "2"}  # glibc keeps 8 arenas a core: 30 MB of a worker
{{- with $values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "postroad.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "postroad.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The name of a partition's owner must not change while it is away: kubelet waits longer than the worker itself. */}}
{{- define "postroad.grace" -}}
{{- add (.Values.settings.grace_s | default 30 | ceil | int) 15 -}}
{{- end -}}

{{- define "postroad.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* {root, component, own}: what all pods have. own: nodeSelector, tolerations, podAnnotations, hostNetwork of this one. */}}
{{- define "postroad.pod" -}}
{{- $values := .root.Values -}}
serviceAccountName: {{ include "postroad.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false  # they would be read as settings
securityContext:
  {{- include "postroad.podSecurity" . | nindent 2 }}
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if .own.hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- with merge (dict) (.own.nodeSelector | default dict) $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat $values.tolerations (.own.tolerations | default list) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "postroad.selector" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{- define "postroad.podMetadata" -}}
labels:
  {{- include "postroad.labels" . | nindent 2 }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.own.podAnnotations | default dict) .root.Values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* {root, stage}: the number of partitions of its topics, so the most replicas that have work. */}}
{{- define "postroad.partitions" -}}
{{- $road := include "postroad.road" .root | fromYaml -}}
{{- $most := 0 -}}
{{- range (get $road.stages .stage).reads -}}
{{- $most = max $most (.partitions | default $.root.Values.settings.partitions | int) -}}
{{- end -}}
{{- $most -}}
{{- end -}}

{{- define "postroad.topics" -}}
{{- $road := include "postroad.road" .root | fromYaml -}}
{{- $names := list -}}
{{- range (get $road.stages .stage).reads -}}{{- $names = append $names .topic -}}{{- end -}}
{{- join ", " $names -}}
{{- end -}}

{{- define "postroad.to" -}}
- ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "postroad.outside" -}}
- ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  to:
    {{- range $family, $all := dict "4" "0.0.0.0/0" "6" "::/0" }}
    - ipBlock:
        cidr: {{ $all | quote }}
        {{- $except := list }}
        {{- range $.inside }}
        {{- if eq (contains ":" .) (eq $family "6") }}{{ $except = append $except . }}{{ end }}
        {{- end }}
        {{- with $except }}
        except: {{ toJson . }}
        {{- end }}
    {{- end }}
{{- end -}}

{{- define "postroad.jobPod" -}}
restartPolicy: {{ .restart }}
{{- /* before an installation our own account is not there yet */}}
serviceAccountName: {{ if .hook }}default{{ else }}{{ include "postroad.serviceAccount" .root }}{{ end }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "postroad.podSecurity" . | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
containers:
  - name: {{ .component }}
    image: {{ include "postroad.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: {{ toJson .args }}
    env:
      {{- include "postroad.env" . | nindent 6 }}
    resources: {requests: {cpu: 100m, memory: 192Mi}, limits: {memory: 512Mi}}
    securityContext:
      {{- include "postroad.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - {name: data, mountPath: /var/lib/postroad}
      - {name: tmp, mountPath: /tmp}
volumes:
  - {name: data, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
{{- end -}}
