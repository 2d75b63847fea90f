// Package provisioner serves the StorageClass of the local cluster: a folder and a `local` volume
// for each claim, both removed with the claim.
//
// Volumes made in advance stay Released after their first claim and a second run hangs on them,
// and the in-tree hostpath provisioner makes folders that only root can write. The kubelet applies
// fsGroup to `local` volumes, so a container that is not root can write here.
package provisioner

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const (
	provisionerName = "lookback.dev/local"
	selectedNode    = "volume.kubernetes.io/selected-node"
	claimedFor      = "volume.kubernetes.io/storage-provisioner"
	provisionedBy   = "pv.kubernetes.io/provisioned-by"
)

// provisioner holds what one pass over all claims and volumes needs.
type provisioner struct {
	client  kubernetes.Interface
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	root    string
}

// NewCommand returns the program `local-provisioner`.
func NewCommand() *cobra.Command {
	var kubeconfig, root string
	command := &cobra.Command{
		Use:   "local-provisioner",
		Short: "Provision folders of this node as `local` volumes",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return run(command.Context(), kubeconfig, root)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "file with the address of the API server")
	command.Flags().StringVar(&root, "root", "", "folder that holds one folder a volume")
	return command
}

func run(ctx context.Context, kubeconfig, root string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client of kubeconfig %s: %w", kubeconfig, err)
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	p := &provisioner{
		client:  client,
		claims:  factory.Core().V1().PersistentVolumeClaims().Lister(),
		volumes: factory.Core().V1().PersistentVolumes().Lister(),
		root:    root,
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	wait.UntilWithContext(ctx, p.pass, 300*time.Millisecond)
	return nil
}

// pass looks at every claim and volume of the caches. The cluster is small and a pass makes no
// request unless something is to be done, so a queue would only add code.
func (p *provisioner) pass(ctx context.Context) {
	claims, err := p.claims.List(labels.Everything())
	if err != nil {
		klog.ErrorS(err, "List claims")
	}
	for _, claim := range claims {
		if !isPending(claim) {
			continue
		}
		if err := p.provision(ctx, claim); err != nil {
			klog.ErrorS(err, "Provision volume", "claim", klog.KObj(claim))
		}
	}
	volumes, err := p.volumes.List(labels.Everything())
	if err != nil {
		klog.ErrorS(err, "List volumes")
	}
	for _, volume := range volumes {
		if volume.Annotations[provisionedBy] != provisionerName || volume.Status.Phase != corev1.VolumeReleased ||
			volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
			continue
		}
		if err := p.remove(ctx, volume); err != nil {
			klog.ErrorS(err, "Remove volume", "volume", volume.Name)
		}
	}
}

// isPending tells whether the scheduler has chosen a node for the claim and waits for us.
func isPending(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Status.Phase == corev1.ClaimPending && claim.Spec.VolumeName == "" && claim.DeletionTimestamp == nil &&
		claim.Annotations[claimedFor] == provisionerName && claim.Annotations[selectedNode] != ""
}

func (p *provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	name := "pvc-" + string(claim.UID)
	if _, err := p.volumes.Get(name); err == nil {
		return nil // made in an earlier pass; the binder has not caught up
	}
	folder := filepath.Join(p.root, name)
	if err := os.MkdirAll(folder, 0o770); err != nil {
		return fmt.Errorf("make folder %s: %w", folder, err)
	}
	volume := volumeFor(claim, name, folder)
	_, err := p.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create volume %s: %w", name, err)
	}
	return nil
}

// volumeFor builds the volume of a claim, bound to it and to the node the scheduler chose.
func volumeFor(claim *corev1.PersistentVolumeClaim, name, folder string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisionerName}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			StorageClassName:              *claim.Spec.StorageClassName,
			VolumeMode:                    claim.Spec.VolumeMode,
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: folder}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn,
					Values: []string{claim.Annotations[selectedNode]},
				}}}},
			}},
		},
	}
}

// remove deletes the folder before the volume: while the volume is there, the next pass tries again.
func (p *provisioner) remove(ctx context.Context, volume *corev1.PersistentVolume) error {
	folder := filepath.Join(p.root, volume.Name)
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("remove folder %s: %w", folder, err)
	}
	err := p.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{
		Preconditions: metav1.NewUIDPreconditions(string(volume.UID)),
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete volume %s: %w", volume.Name, err)
	}
	return nil
}
